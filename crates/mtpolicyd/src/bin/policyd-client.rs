//! `policyd-client`: asks a policy server the questions typed on standard input.
//!
//! Knows: its options, and the client of `postfix-policy`. Must not know: the daemon.
//!
//! A question is `name=value` lines and an empty line; `request` and `instance` are made up where they are
//! not given. Each answer's action is printed as one line.

use std::future::Future;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fmt, process};

use backends::{Endpoint, Socket};
use bytes::BytesMut;
use clap::ArgMatches;
use mtpolicyd::cli::client::{self, DEFAULT_HOST};
use postfix_policy::client::{Answer, ClientError, Connection};
use postfix_policy::{Decoder, ProtocolError, Request};

/// As long as Postfix waits (`smtpd_policy_service_timeout`) for a connection, and for an answer.
const PATIENCE: Duration = Duration::from_secs(100);

/// Bytes that one read takes from standard input.
const READ_BYTES: usize = 8 << 10;

fn main() -> ExitCode {
    let matches = client::command().get_matches();
    match run(&matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // If standard error is closed too, the exit code has to do.
            let _ = writeln!(io::stderr(), "policyd-client: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let verbose = matches.get_flag("verbose");
    let mut server =
        Server { endpoint: endpoint(matches)?, keepalive: matches.get_flag("keepalive"), connection: None };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut questions = Questions::default();
    while let Some(typed) = questions.next()? {
        let question = complete(&typed, questions.count)?;
        if verbose {
            show(">> ", question.iter())?;
        }
        let answer = runtime.block_on(server.ask(&question))?;
        if verbose {
            show("<< ", answer.attributes.iter().map(|(name, value)| (&name[..], &value[..])))?;
        }
        let mut output = io::stdout().lock();
        output.write_all(answer.action().unwrap_or_default())?;
        output.write_all(b"\n")?;
        output.flush()?;
    }
    Ok(())
}

fn endpoint(matches: &ArgMatches) -> Result<Endpoint, Failure> {
    if let Some(path) = matches.get_one::<PathBuf>("socket_path") {
        return Ok(Endpoint::Unix(path.clone()));
    }
    let host = matches.get_one::<String>("host").map_or(DEFAULT_HOST, String::as_str);
    host.parse().map_err(|error| Failure::Open {
        place: host.to_owned(),
        error: io::Error::new(io::ErrorKind::InvalidInput, error).into(),
    })
}

/// The requests on standard input.
#[derive(Default)]
struct Questions {
    decoder: Decoder,
    buffer: BytesMut,
    /// The number read so far.
    count: u64,
}

impl Questions {
    /// The next one, as soon as its empty line has been typed; `None` at the end of the input.
    fn next(&mut self) -> Result<Option<Request>, Failure> {
        loop {
            if let Some(request) = self.decoder.decode(&mut self.buffer).map_err(Failure::Question)? {
                self.count += 1;
                return Ok(Some(request));
            }
            let mut chunk = [0; READ_BYTES];
            match io::stdin().read(&mut chunk) {
                Ok(0) if self.decoder.is_mid_request(&self.buffer) => return Err(Failure::HalfQuestion),
                Ok(0) => return Ok(None),
                Ok(length) => self.buffer.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Adds `request` and `instance` where they were not typed. `sequence` tells questions of one run apart.
fn complete(typed: &Request, sequence: u64) -> Result<Request, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // The form of Postfix: process, seconds, microseconds and a number, all hexadecimal.
    let instance = format!("{:x}.{:x}.{:x}.{sequence:x}", process::id(), now.as_secs(), now.subsec_micros());
    let invented = [("request", "smtpd_access_policy"), ("instance", instance.as_str())]
        .into_iter()
        .filter(|(name, _)| typed.get(name).is_none())
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    Request::from_pairs(invented.chain(typed.iter())).map_err(Failure::Question)
}

/// Prints attributes and the empty line behind them to standard error.
fn show<'a>(mark: &str, attributes: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> io::Result<()> {
    let mut text = Vec::new();
    for (name, value) in attributes {
        text.extend([mark.as_bytes(), name, b"=", value, b"\n"].concat());
    }
    text.extend([mark.as_bytes(), b"\n"].concat());
    io::stderr().write_all(&text)
}

/// The server that is asked, and the connection to it that was kept.
struct Server {
    endpoint: Endpoint,
    keepalive: bool,
    connection: Option<Connection<Socket>>,
}

impl Server {
    /// Asks on the kept connection, or on a new one if the server has closed that meanwhile, as it may.
    async fn ask(&mut self, question: &Request) -> Result<Answer, Failure> {
        if let Some(mut kept) = self.connection.take()
            && kept.is_usable()
        {
            match within(kept.ask(question)).await {
                Err(Failure::Ask(error)) if error.is_hang_up() => (),
                answer => {
                    self.connection = Some(kept);
                    return answer;
                }
            }
        }
        let connected = async { Ok(Socket::connect(&self.endpoint, PATIENCE).await?) };
        let socket = within(connected).await.map_err(|failure| match failure {
            Failure::Ask(error) => Failure::Open { place: self.endpoint.to_string(), error },
            other => other,
        })?;
        let mut connection = Connection::new(socket);
        let answer = within(connection.ask(question)).await?;
        self.connection = self.keepalive.then_some(connection);
        Ok(answer)
    }
}

async fn within<T>(work: impl Future<Output = Result<T, ClientError>>) -> Result<T, Failure> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(result) => result.map_err(Failure::Ask),
        Err(_) => Err(Failure::TimedOut),
    }
}

/// Why the program ends before its input does.
#[derive(Debug)]
enum Failure {
    /// The input is not a question.
    Question(ProtocolError),
    /// The input ends before the empty line.
    HalfQuestion,
    /// The server can't be reached.
    Open { place: String, error: ClientError },
    /// The server did not answer as it should.
    Ask(ClientError),
    /// The server took longer than [`PATIENCE`].
    TimedOut,
    /// Standard input or output fails.
    Io(io::Error),
}

impl Failure {
    /// The original ends with the number of the system's last error, or 255 where there is none. Scripts may
    /// know these numbers, so they stay: 111 is a refused connection, 2 a missing socket.
    fn exit_code(&self) -> u8 {
        /// EINVAL: no such host, or no port behind it.
        const NO_SUCH_PLACE: u8 = 22;
        /// What the original happens to end with when a question or an answer can't be read.
        const NOT_THE_PROTOCOL: u8 = 29;
        /// ETIMEDOUT.
        const TIMED_OUT: u8 = 110;
        const OTHER: u8 = 255;

        let of_system = |error: &io::Error| error.raw_os_error().and_then(|code| u8::try_from(code).ok());
        match self {
            Failure::Open { error: ClientError::Io(error), .. } => of_system(error).unwrap_or(NO_SUCH_PLACE),
            Failure::Ask(ClientError::Io(error)) | Failure::Io(error) => of_system(error).unwrap_or(OTHER),
            Failure::Question(_)
            | Failure::Ask(ClientError::NoAction | ClientError::TooLong(_) | ClientError::Malformed(_)) => {
                NOT_THE_PROTOCOL
            }
            Failure::TimedOut => TIMED_OUT,
            Failure::HalfQuestion | Failure::Open { .. } | Failure::Ask(_) => OTHER,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Io(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Question(error) => write!(f, "the input is not a question: {error}"),
            Failure::HalfQuestion => {
                write!(f, "the input ended before the empty line that closes a question")
            }
            Failure::Open { place, error } => write!(f, "can't connect to {place}: {error}"),
            Failure::Ask(error) if error.is_hang_up() => write!(
                f,
                "{error}: mtpolicyd does so if a plugin fails whose `on_error` is `close`, if it can't read \
                 the question, and while it ends; its log says which"
            ),
            Failure::Ask(error) => write!(f, "{error}"),
            Failure::TimedOut => write!(f, "no answer within {} seconds", PATIENCE.as_secs()),
            Failure::Io(error) => write!(f, "standard input or output: {error}"),
        }
    }
}
