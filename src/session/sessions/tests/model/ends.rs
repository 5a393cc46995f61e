//! Ends of sessions, while the channels work.

use super::*;

/// Stands for: a reader must find the version as it was (`Cache::keep`).
#[test]
fn a_copy_is_filled_while_its_session_ends() {
    for (news, least) in WAYS.into_iter().zip([140, 320, 740]) {
        let cast = Cast::new(Setting { news, ..PLAIN });
        let explored = cast.explore(|scene, cast| {
            let there = other(scene);
            vec![
                look(scene, there, &cast.one, "look"),
                look(scene, there, &cast.one, "look again"),
                end(scene, 0, &cast.one, "end"),
            ]
        });
        enough(&format!("fill, {news:?}"), least, explored);
    }
}

/// Stands for: who ends a session removes its own copy at once (`delete_presented`), and
/// does not wait for the news of it.
#[test]
fn a_session_ends_where_there_is_a_copy() {
    for (news, least) in WAYS.into_iter().zip([20, 20, 6]) {
        let cast = Cast::new(Setting { news, ..PLAIN });
        let explored = cast.explore(|scene, cast| {
            let there = other(scene);
            prime(scene, &cast.one);
            vec![
                look(scene, there, &cast.one, "look"),
                end(scene, there, &cast.one, "end"),
            ]
        });
        enough(&format!("own copy, {news:?}"), least, explored);
    }
}

/// Stands for: a store has no upsert.
#[test]
fn a_session_slides_while_it_ends() {
    for (news, least) in WAYS.into_iter().zip([26, 88, 27]) {
        let cast = Cast::new(Setting {
            news,
            slides: true,
            ..PLAIN
        });
        let explored = cast.explore(|scene, cast| {
            let there = other(scene);
            prime(scene, &cast.one);
            vec![
                look(scene, there, &cast.one, "look"),
                end(scene, 0, &cast.one, "end"),
            ]
        });
        enough(&format!("slide, {news:?}"), least, explored);
    }
}

/// Stands for: `update` replaces exactly what was read.
#[test]
fn a_record_is_sealed_anew_while_its_session_ends() {
    for (news, least) in WAYS.into_iter().zip([6, 150, 60]) {
        let cast = Cast::with(Setting { news, ..PLAIN }, &["a"], &["n", "a"]);
        let explored = cast.explore(|scene, cast| {
            let there = other(scene);
            let (on, session) = (scene.clone(), cast.session.clone());
            let renew = Actor::on(there, "seal anew", async move {
                on.replicas[there].renew(&on.rules, &session).await;
            })
            .caring_for(&[]);
            vec![renew, end(scene, 0, &cast.one, "end")]
        });
        enough(&format!("renew, {news:?}"), least, explored);
    }
}

/// Stands for: a login ends what the browser had before.
#[test]
fn a_login_replaces_a_session_that_is_used_or_ends() {
    for (news, least) in WAYS.into_iter().zip([5, 40, 300]) {
        let cast = Cast::new(Setting { news, ..PLAIN });
        let explored = cast.explore(|scene, cast| {
            let there = other(scene);
            vec![
                rotate(scene, 0, &cast.one),
                look(scene, there, &cast.one, "look"),
            ]
        });
        enough(&format!("rotation and look, {news:?}"), least, explored);
        if news == News::Listened {
            // Everybody hears of everything, which is too much to be tried.
            continue;
        }
        let explored = cast.explore(|scene, cast| {
            let there = other(scene);
            vec![
                rotate(scene, 0, &cast.one),
                end(scene, there, &cast.one, "end"),
            ]
        });
        enough(&format!("rotation and end, {news:?}"), 30, explored);
        if news == News::Tracked {
            let explored = cast.explore(|scene, cast| {
                vec![rotate(scene, 0, &cast.one), rotate(scene, 1, &cast.one)]
            });
            enough("two rotations", 120, explored);
        }
    }
}

fn rotate(scene: &Scene, replica: usize, signed: &Signed) -> Actor {
    let (scene, cared, signed) = (scene.clone(), signed, signed.clone());
    Actor::on(replica, "log in", async move {
        let new = scene.login(replica, &signed.cookie).await;
        scene.look(replica, &signed).await;
        if let Some(new) = new {
            scene.look(replica, &new).await;
        }
    })
    .caring_for(&[cared])
}

/// Stands for: the moment of a login is compared with the user's epoch whenever its
/// session is used.
#[test]
fn a_login_runs_while_its_user_signs_out_everywhere() {
    for (news, least) in WAYS.into_iter().zip([3, 20, 60]) {
        let cast = Cast::new(Setting { news, ..PLAIN });
        let explored = cast.explore(|scene, cast| {
            let there = other(scene);
            let on = scene.clone();
            let login = Actor::on(there, "log in", async move {
                on.login(there, &HeaderMap::new()).await;
            })
            .caring_for(&[]);
            vec![login, end_all(scene, 0, cast, "end all")]
        });
        enough(&format!("login and end all, {news:?}"), least, explored);
    }
}

/// Stands for: the copies of a user's sessions share one epoch, and a reading that
/// others wait for is good for them only if that has not changed.
#[test]
fn a_user_signs_out_everywhere_while_another_session_is_read() {
    for (news, least) in WAYS.into_iter().zip([100, 240, 440]) {
        let cast = Cast::new(Setting { news, ..PLAIN });
        for here in [true, false] {
            if !here && news == News::AtOnce {
                continue;
            }
            let explored = cast.explore(|scene, cast| {
                let there = if here { 0 } else { other(scene) };
                vec![
                    look(scene, there, &cast.two, "look"),
                    look(scene, there, &cast.two, "look again"),
                    end_all(scene, 0, cast, "end all"),
                ]
            });
            enough(&format!("end all, {news:?}, {here}"), least, explored);
        }
    }
}
