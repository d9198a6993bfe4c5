//! Which server is asked, and which one after it.
//!
//! Knows: servers, the order in which they are tried. Must not know: what is asked.

use super::job::Fault;
use super::protocol::{Replies, Request};
use super::server::Server;
use super::{Memcached, Name};
use crate::{BackendError, Call};
use tokio::time::Instant;

impl Memcached {
    /// Has a request answered by the server of a key, or by the next one if that is down.
    pub(super) async fn call(
        &self,
        name: &Name<'_>,
        request: impl FnOnce(&[u8]) -> Request,
        call: Call<'_>,
    ) -> Result<(&Server, Replies), BackendError> {
        let begun = Instant::now();
        let answered = self.ask_in_turn(name, request(&name.full), call.at_most(self.timeout)).await;
        self.numbers.note(begun, &answered);
        answered
    }

    async fn ask_in_turn(
        &self,
        name: &Name<'_>,
        mut request: Request,
        call: Call<'_>,
    ) -> Result<(&Server, Replies), BackendError> {
        let mut first_error = None;
        for server in self.choice.order(&name.chosen_by).filter_map(|index| self.servers.get(index)) {
            let error = match server.check() {
                Err(error) => error,
                Ok(()) => match server.call(request, call.deadline()).await {
                    Ok(replies) => return Ok((server, replies)),
                    Err(Fault::Lost(error)) => return Err(error),
                    Err(Fault::Unsent(unsent, error)) => {
                        request = unsent;
                        error
                    }
                },
            };
            first_error.get_or_insert(error);
        }
        Err(first_error.unwrap_or_else(|| self.servers[0].refused("no server".to_owned())))
    }

    /// The server where a key is now.
    pub(super) fn home(&self, name: &Name<'_>) -> &Server {
        let mut order = self.choice.order(&name.chosen_by).filter_map(|index| self.servers.get(index));
        order.find(|server| server.check().is_ok()).unwrap_or(&self.servers[0])
    }
}
