//! gRPC from end to end: every kind of call, by a real client to a real
//! service.

use crate::harness::config::Config;
use crate::harness::grpc::{self, Grpc};
use crate::harness::pki::Authority;
use crate::harness::users::ALICE;

#[test]
fn every_kind_of_call_passes_in_the_clear() {
    let service = Grpc::start(None);
    let proxy = Config::to(service.addr())
        .set(
            "upstreams.app.urls",
            vec![format!("h2c://{}", service.addr())],
        )
        .start();
    grpc::call(proxy.addr(), &proxy.sign_in(&ALICE), ALICE.id);
    assert!(service.sees_cancellation());
}

#[test]
fn every_kind_of_call_passes_over_tls() {
    let authority = Authority::new();
    let service = Grpc::start(Some(&authority.certify(&["127.0.0.1"])));
    let proxy = Config::to(service.addr())
        .set(
            "upstreams.app.urls",
            vec![format!("https://{}", service.addr())],
        )
        .set("upstreams.app.tls.ca", "ca.pem")
        .file("ca.pem", authority.pem())
        .start();
    grpc::call(proxy.addr(), &proxy.sign_in(&ALICE), ALICE.id);
    assert!(service.sees_cancellation());
}
