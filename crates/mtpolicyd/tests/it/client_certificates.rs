//! Databases that let nobody in who does not show a certificate. (`redis_failover.rs` has the same of Redis.)
//!
//! Knows: `backends::sql`, real servers. Must not know: plugins, the daemon.

use crate::sql::{NAME, encrypting_postgres, open, settings, soon, statement};
use crate::support::servers::certificates::Certificates;
use crate::support::servers::{mariadb, postgres};
use backends::BackendError;
use backends::sql::{SqlSettings, Work};
use backends::tls::Identity;
use std::fs;
use std::path::PathBuf;

fn identity(certificates: &Certificates) -> Identity {
    let file = |path: PathBuf| path.display().to_string();
    Identity { certificate: file(certificates.certificate()), key: file(certificates.key()) }
}

async fn ping(dsn: &str, identity: Option<Identity>) -> Result<(), BackendError> {
    open(SqlSettings { identity, ..settings(dsn.to_owned()) }).ping(soon()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_lets_in_who_shows_a_certificate() {
    let (ours, others) = (Certificates::new(), Certificates::new());
    let option = |name: &str, file: PathBuf| format!("--{name}={}", file.display());
    let server = mariadb::start_with(&[
        &option("ssl-cert", ours.certificate()),
        &option("ssl-key", ours.key()),
        &option("ssl-ca", ours.authority()),
    ]);
    let dsn =
        format!("{};mysql_ssl=1;mysql_ssl_ca_file={}", mariadb::dsn(&server), ours.authority().display());
    let demand = statement(&format!("ALTER USER {NAME}@'%' REQUIRE X509"), Vec::new());
    let demand = Work { statements: vec![demand], lock: None, durable: true };
    open(settings(dsn.clone())).run(demand, soon()).await.unwrap();

    let refused = ping(&dsn, None).await.unwrap_err();
    assert!(refused.to_string().contains("Access denied"), "{refused}");
    ping(&dsn, Some(identity(&others))).await.unwrap_err();
    ping(&dsn, Some(identity(&ours))).await.unwrap();
    let Identity { certificate, key } = identity(&ours);
    let in_dsn = format!("{dsn};mysql_ssl_client_cert={certificate};mysql_ssl_client_key={key}");
    ping(&in_dsn, None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_lets_in_who_shows_a_certificate() {
    let (ours, others) = (Certificates::new(), Certificates::new());
    let rules = ours.authority().with_file_name("pg_hba.conf");
    // The server is seen to be ready without encryption.
    let lines = "hostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\n\
                 hostnossl all all 127.0.0.1/32 scram-sha-256\n";
    fs::write(&rules, lines).expect("the folder is writable");
    let more =
        [format!("hba_file={}", rules.display()), format!("ssl_ca_file={}", ours.authority().display())];
    let server = encrypting_postgres(&ours, &[&more[0], &more[1]]);
    let authority = ours.authority().display().to_string();
    let dsn = format!("{};sslmode=verify-full;sslrootcert={authority}", postgres::dsn(&server));

    let refused = ping(&dsn, None).await.unwrap_err();
    assert!(refused.to_string().contains("certificate"), "{refused}");
    ping(&dsn, Some(identity(&others))).await.unwrap_err();
    ping(&dsn, Some(identity(&ours))).await.unwrap();
    let Identity { certificate, key } = identity(&ours);
    ping(&format!("{dsn};sslcert={certificate};sslkey={key}"), None).await.unwrap();
}
