//! Sessions that applications share.

use super::*;

const SHARED: Setting = Setting {
    shared: true,
    ..PLAIN
};

/// The application's number, which is no replica's.
const APP: usize = 5;

/// A request of the application.
fn app(scene: &Scene, signed: &Signed) -> Actor {
    let (scene, cared, signed) = (scene.clone(), signed, signed.clone());
    Actor::on(APP, "application", async move {
        scene.app(APP, &signed).await;
    })
    .caring_for(&[cared])
}

/// Stands for: what was written back after its end is found and removed, and of a miss
/// nobody shares what was read before (`counts_for_others`).
#[test]
fn an_application_writes_back_what_has_ended() {
    let cast = Cast::new(SHARED);
    let explored = cast.explore(|scene, cast| {
        vec![
            app(scene, &cast.one),
            look(scene, 1, &cast.one, "look"),
            end(scene, 0, &cast.one, "end"),
        ]
    });
    enough("application and end", 2000, explored);
    let explored =
        cast.explore(|scene, cast| vec![app(scene, &cast.two), end_all(scene, 0, cast, "end all")]);
    enough("application and end all", 30, explored);
    let explored = cast.explore(|scene, cast| {
        let (on, signed) = (scene.clone(), cast.one.clone());
        let read = cast.one.record.value.clone();
        let late = Actor::on(APP, "application", async move {
            on.write_back(APP, &signed, &read).await;
        });
        explore::alone(scene, end(scene, 0, &cast.one, "before"));
        vec![
            late.caring_for(&[&cast.one]),
            look(scene, 1, &cast.one, "look"),
            look(scene, 1, &cast.one, "look again"),
        ]
    });
    enough("application, late", 1000, explored);
}

/// Stands for: nothing but the application writes a record that both have.
#[test]
fn an_application_writes_while_its_session_slides() {
    let cast = Cast::new(Setting {
        slides: true,
        ..SHARED
    });
    let explored = cast.explore(|scene, cast| {
        prime(scene, &cast.one);
        vec![app(scene, &cast.one), look(scene, 1, &cast.one, "look")]
    });
    enough("application and slide", 25, explored);
    let cast = Cast::with(SHARED, &["a"], &["n", "a"]);
    let explored = cast.explore(|scene, cast| {
        let (on, session) = (scene.clone(), cast.session.clone());
        let renew = Actor::on(1, "sign anew", async move {
            on.replicas[1].renew(&on.rules, &session).await;
        });
        vec![
            app(scene, &cast.one),
            renew.caring_for(&[]),
            look(scene, 1, &cast.one, "look"),
        ]
    });
    enough("application and new secret", 40, explored);
}
