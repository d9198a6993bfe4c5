//! What finding one typical request costs, and looking up its attributes.

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use postfix_policy::{Decoder, Reply, Request};

/// What Postfix 3.7 asks at RCPT for a client over TLS: 29 attributes.
const REQUEST: &str = "request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\n\
    client_address=192.0.2.10\nclient_name=mail.example.org\nclient_port=48214\n\
    reverse_client_name=mail.example.org\nserver_address=198.51.100.25\nserver_port=25\n\
    helo_name=mail.example.org\nsender=alice@example.org\nrecipient=bob@example.net\nrecipient_count=0\n\
    queue_id=\ninstance=1a2b.5d0c1f3e.8a11c.0\nsize=12345\netrn_domain=\nstress=\nsasl_method=\n\
    sasl_username=\nsasl_sender=\nccert_subject=\nccert_issuer=\nccert_fingerprint=\n\
    ccert_pubkey_fingerprint=\nencryption_protocol=TLSv1.3\nencryption_cipher=TLS_AES_256_GCM_SHA384\n\
    encryption_keysize=256\npolicy_context=\n\n";

fn decode_one(decoder: &mut Decoder, buffer: &mut BytesMut) -> Request {
    buffer.extend_from_slice(REQUEST.as_bytes());
    decoder.decode(buffer).expect("it is well formed").expect("it is whole")
}

fn benches(criterion: &mut Criterion) {
    let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::with_capacity(4096));
    let request = decode_one(&mut decoder, &mut buffer);
    assert_eq!(request.iter().count(), 29);

    let mut group = criterion.benchmark_group("request");
    group.throughput(Throughput::Bytes(REQUEST.len() as u64));
    group.bench_function("decode", |bencher| bencher.iter(|| decode_one(&mut decoder, &mut buffer)));
    group.finish();
    criterion.bench_function("request/get", |bencher| {
        bencher.iter(|| request.get(black_box("client_address")));
    });
    criterion.bench_function("reply/write", |bencher| {
        bencher.iter(|| {
            let mut output = Vec::with_capacity(64);
            Reply::new(black_box("reject not today")).write_to(&mut output);
            output
        });
    });
}

criterion_group!(decode, benches);
criterion_main!(decode);
