//! Ends of sessions, while nobody is told of them or the store is down.

use super::*;

/// The ways of news that can be lost.
const FAR: [News; 2] = [News::Tracked, News::Listened];

/// Stands for: the era of copies, which a lost channel ends.
#[test]
fn the_channel_is_lost_while_a_session_ends() {
    for (news, least) in FAR.into_iter().zip([160, 500]) {
        let cast = Cast::new(Setting { news, ..PLAIN });
        let explored = cast.explore(|scene, cast| {
            prime(scene, &cast.one);
            vec![
                look(scene, 1, &cast.one, "look"),
                lose(scene, 1),
                end(scene, 0, &cast.one, "end"),
                look(scene, 1, &cast.one, "look again"),
            ]
        });
        enough(&format!("loss, {news:?}"), least, explored);
        let explored = cast.explore(|scene, cast| {
            prime(scene, &cast.one);
            let stage = scene.stage.clone();
            let back = Actor::world("the channel is back", async move {
                stage.lose(1);
                tokio::task::yield_now().await;
                stage.restore(1);
            });
            vec![
                look(scene, 1, &cast.one, "look"),
                back,
                end(scene, 0, &cast.one, "end"),
            ]
        });
        enough(&format!("loss and return, {news:?}"), least, explored);
    }
}

/// Stands for: whoever comes while a reading is under way waits for a later one, unless
/// changes are told.
#[test]
fn a_session_ends_while_nobody_is_told() {
    for (news, least) in FAR.into_iter().zip([40, 130]) {
        let cast = Cast::new(Setting { news, ..PLAIN });
        let explored = cast.explore(|scene, cast| {
            scene.stage.lose(1);
            vec![
                look(scene, 1, &cast.one, "look"),
                look(scene, 1, &cast.one, "look again"),
                end(scene, 0, &cast.one, "end"),
            ]
        });
        enough(&format!("no channel, {news:?}"), least, explored);
    }
}

/// Stands for: what is known to be over is no copy for an outage either, whichever era
/// it is from.
#[test]
fn an_outage_comes_after_the_end() {
    for (news, least) in FAR.into_iter().zip([25, 160]) {
        let cast = Cast::new(Setting {
            news,
            outage: true,
            ..PLAIN
        });
        for everywhere in [true, false] {
            let explored = cast.explore(|scene, cast| {
                prime(scene, &cast.two);
                scene.stage.lose(1);
                scene.stage.restore(1);
                prime(scene, &cast.one);
                let end = match everywhere {
                    true => end_all(scene, 1, cast, "end all"),
                    false => end(scene, 0, &cast.two, "end"),
                };
                let stage = scene.stage.clone();
                let down = Actor::world("the store is down", async move {
                    stage.lose(1);
                    stage.lock().down = true;
                });
                vec![end, down, look(scene, 1, &cast.two, "look for the other")]
            });
            enough(&format!("outage, {news:?}, {everywhere}"), least, explored);
        }
    }
}

/// Stands for: a channel that is silent is believed for a while, and is lost then.
#[test]
fn the_channel_is_silent_while_a_session_ends() {
    for (news, least) in FAR.into_iter().zip([600, 2000]) {
        let cast = Cast::new(Setting { news, ..PLAIN });
        let explored = cast.explore(|scene, cast| {
            prime(scene, &cast.one);
            let stage = scene.stage.clone();
            let silence = Actor::world("silence", async move {
                stage.silence(1);
                tokio::task::yield_now().await;
                stage.lose(1);
            });
            vec![
                silence,
                look(scene, 1, &cast.one, "look"),
                look(scene, 1, &cast.one, "look again"),
                end(scene, 0, &cast.one, "end"),
            ]
        });
        enough(&format!("silence, {news:?}"), least, explored);
    }
}
