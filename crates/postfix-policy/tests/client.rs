//! The client against real sockets: what servers answer, and what they do wrong.

// Clippy takes only functions marked as tests for tests, not what they call.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::Duration;

use postfix_policy::client::{ClientError, Connection};
use postfix_policy::{Request, limits};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// A wait that no answer takes.
const PATIENCE: Duration = Duration::from_secs(5);

fn question() -> Request {
    Request::from_pairs([("request", "smtpd_access_policy"), ("sender", "a=b")]).unwrap()
}

/// A server that takes one connection, answers question n with `answers[n]`, then closes.
async fn server(answers: &[&[u8]]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answers: Vec<Vec<u8>> = answers.iter().map(|answer| answer.to_vec()).collect();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        serve(&mut stream, &answers).await;
    });
    address
}

async fn open(address: SocketAddr) -> Connection<TcpStream> {
    Connection::new(TcpStream::connect(address).await.unwrap())
}

async fn serve(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), answers: &[Vec<u8>]) {
    for answer in answers {
        let mut asked = vec![0; question().frame().len()];
        stream.read_exact(&mut asked).await.unwrap();
        assert_eq!(asked, question().frame());
        stream.write_all(answer).await.unwrap();
    }
}

async fn ask<S>(connection: &mut Connection<S>) -> Result<Vec<u8>, ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let answer = tokio::time::timeout(PATIENCE, connection.ask(&question())).await.unwrap()?;
    Ok(answer.action().expect("an answer has one").to_vec())
}

async fn ask_once(answer: &[u8]) -> Result<Vec<u8>, ClientError> {
    ask(&mut open(server(&[answer]).await).await).await
}

#[tokio::test]
async fn the_first_action_counts() {
    for (answer, action) in [
        (&b"action=reject  no \n\n"[..], &b"reject  no "[..]),
        (b"action=one\naction=two\n\n", b"one"),
        (b"debug=1\naction=a=\xff\n\n", b"a=\xff"),
        (b"action=crlf\r\n\r\n", b"crlf"),
        (b"action=\n\n", b""),
    ] {
        assert_eq!(ask_once(answer).await.unwrap(), action);
    }
}

#[tokio::test]
async fn all_attributes_are_kept_in_order() {
    let mut connection = open(server(&[b"x=1\naction=ok\nx=2\n\n"]).await).await;
    let answer = connection.ask(&question()).await.unwrap();
    let shown: Vec<String> = (answer.attributes.iter())
        .map(|(name, value)| format!("{}={}", name.escape_ascii(), value.escape_ascii()))
        .collect();
    assert_eq!(shown, ["x=1", "action=ok", "x=2"]);
}

#[tokio::test]
async fn a_bad_answer_is_an_error() {
    assert!(matches!(ask_once(b"").await, Err(ClientError::ClosedEarly { received: 0 })));
    assert!(matches!(ask_once(b"action=ok\n").await, Err(ClientError::ClosedEarly { received: 10 })));
    assert!(matches!(ask_once(b"foo=bar\n\n").await, Err(ClientError::NoAction)));
    assert!(matches!(ask_once(b"\n").await, Err(ClientError::NoAction)));
    assert!(matches!(ask_once(b"SSH-2.0\r\n").await, Err(ClientError::Malformed(_))));
    assert!(matches!(ask_once(b"action=\0\n\n").await, Err(ClientError::Malformed(_))));
    let endless = vec![b'x'; limits::MAX_ANSWER_BYTES];
    assert!(matches!(ask_once(&endless).await, Err(ClientError::TooLong(_))));
    let many = b"x=\n".repeat(limits::MAX_ANSWER_ATTRIBUTES + 1);
    assert!(matches!(ask_once(&many).await, Err(ClientError::TooLong(_))));
}

#[tokio::test]
async fn a_connection_is_kept_until_the_server_hangs_up() {
    let address = server(&[b"action=1st\n\n", b"action=2nd\n\n"]).await;
    let mut connection = open(address).await;
    assert_eq!(ask(&mut connection).await.unwrap(), b"1st");
    assert!(connection.is_usable());
    assert_eq!(ask(&mut connection).await.unwrap(), b"2nd");
    tokio::time::timeout(PATIENCE, async {
        while connection.is_usable() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .unwrap();
    assert!(matches!(ask(&mut connection).await, Err(ClientError::Unusable)));
}

#[tokio::test]
async fn a_hang_up_that_was_not_noticed_is_told_apart() {
    let mut connection = open(server(&[b"action=1st\n\n"]).await).await;
    assert_eq!(ask(&mut connection).await.unwrap(), b"1st");
    let error = ask(&mut connection).await.unwrap_err();
    assert!(error.is_hang_up(), "{error}");
    assert!(!ask(&mut connection).await.unwrap_err().is_hang_up());
}

#[tokio::test]
async fn bytes_that_nobody_asked_for_are_no_answer() {
    let address = server(&[b"action=1st\n\naction=stale\n\n", b""]).await;
    let mut connection = open(address).await;
    assert_eq!(ask(&mut connection).await.unwrap(), b"1st");
    assert!(!connection.is_usable());
    assert!(matches!(ask(&mut connection).await, Err(ClientError::Unusable)));
}

#[tokio::test]
async fn a_question_that_was_given_up_leaves_no_stale_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut connection = open(listener.local_addr().unwrap()).await;
    let (mut stream, _) = listener.accept().await.unwrap();
    let short = Duration::from_millis(20);
    assert!(tokio::time::timeout(short, connection.ask(&question())).await.is_err());
    stream.write_all(b"action=late\n\n").await.unwrap();
    assert!(!connection.is_usable());
    assert!(matches!(ask(&mut connection).await, Err(ClientError::Unusable)));
}

#[tokio::test]
async fn unix_sockets_work_alike() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        serve(&mut stream, &[b"action=1st\n\n".to_vec(), b"action=2nd\n\n".to_vec()]).await;
    });
    let mut connection = Connection::new(UnixStream::connect(&path).await.unwrap());
    assert_eq!(ask(&mut connection).await.unwrap(), b"1st");
    assert_eq!(ask(&mut connection).await.unwrap(), b"2nd");
}
