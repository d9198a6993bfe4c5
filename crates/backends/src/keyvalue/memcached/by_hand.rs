//! What memcached can and can't tell of what it holds.
//!
//! Knows: keys. Must not know: what the values are for.

use super::Memcached;
use crate::keyvalue::scan::Held;
use crate::{BackendError, Call, Failure};

impl Memcached {
    /// The name of the connection.
    pub fn connection(&self) -> &str {
        &self.connection
    }

    /// What is under a key. memcached does not tell how long it still lives.
    pub async fn held(&self, key: &[u8], call: Call<'_>) -> Result<Option<Held>, BackendError> {
        let value = self.get(key, call).await?;
        Ok(value.map(|value| Held { key: key.to_vec(), value: Some(value), left: None }))
    }

    /// The error about what memcached can't do.
    pub(in crate::keyvalue) fn cannot(&self, message: &str) -> BackendError {
        BackendError { connection: self.connection.clone(), failure: Failure::Refused(message.to_owned()) }
    }
}
