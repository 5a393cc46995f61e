//! Every order of events, for scenarios that are small enough: what two or three
//! requests do on two replicas while a session ends.
//!
//! What runs is the real thing, [`Sessions`] with its copies, its shared readings and
//! what it is told. Only the store's way there and back is played (`stage.rs`), so
//! that a schedule can decide when a command happens, when its answer comes, and when
//! news of a change do; `explore.rs` tries all schedules.
//!
//! What must hold in each of them:
//!
//! - Whoever begins to look for a session that is over does not find it, unless the
//!   news are still on the way to that replica. Where the replica has ended it by
//!   itself, or was told, that is no excuse.
//! - Nobody is told that a session is over before it is.
//! - Nothing but a login makes a key, and no key is made twice.
//! - What an application has written stays as it is.
//!
//! Each scenario says which rule of the program it stands for: with that rule taken
//! out, it fails.

mod applications;
mod ends;
mod explore;
mod handle;
mod look;
mod losses;
mod records;
mod stage;

use super::*;
use crate::session::known::Session;
use explore::{Broken, Play, Way, explore};
use look::{Actor, Scene, Setting, Signed, login};
use stage::{Fault, News};

const PLAIN: Setting = Setting {
    news: News::Tracked,
    shared: false,
    slides: false,
    outage: false,
};

/// Sessions of one user, and the rules for them.
struct Cast {
    setting: Setting,
    rules: Arc<SessionRules>,
    one: Signed,
    two: Signed,
    /// As the first was found once.
    session: Session,
    /// Which take long to be made.
    metrics: Arc<Metrics>,
}

impl Cast {
    fn new(setting: Setting) -> Self {
        Self::with(setting, ["a"].as_slice(), ["a"].as_slice())
    }

    /// `before`: the secrets by which the sessions were made.
    fn with(setting: Setting, before: &[&str], now: &[&str]) -> Self {
        let old = of_secrets(setting, before);
        let clock = Clock::fixed(Timestamp(START - 1000));
        let store = Arc::new(MemoryStore::new(clock.clone(), 10));
        let sessions = Sessions::new(store.clone(), clock, Arc::default(), Arc::default());
        let sessions = Arc::new(sessions);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let rules = of_secrets(setting, now);
        let signed = || async {
            let began = sessions.begin_login().await.unwrap();
            let none = HeaderMap::new();
            let mut signed = login(&sessions, &old, began, &none).await.unwrap();
            let stored = store.load(&signed.key).await.unwrap().unwrap();
            signed.record.value = stored.value;
            signed.record.seen = stored.seen;
            signed
        };
        let (one, two, found) = runtime.block_on(async {
            let (one, two) = (signed().await, signed().await);
            let found = sessions.lookup(&rules, &one.cookie, false).await;
            (one, two, found)
        });
        let Ok(Lookup::Live(session)) = found else {
            panic!("{found:?}");
        };
        Self {
            setting,
            rules: Arc::new(rules),
            one,
            two,
            session,
            metrics: Arc::default(),
        }
    }

    fn scene(&self) -> Scene {
        let seeds = [self.one.clone(), self.two.clone()];
        Scene::new(self.setting, self.rules.clone(), &self.metrics, &seeds)
    }

    /// All orders of what these do; then everybody looks for everything.
    fn explore(&self, actors: impl Fn(&Scene, &Self) -> Vec<Actor>) -> Result<usize, Broken> {
        self.explore_in(Way::Races, actors)
    }

    fn explore_in(
        &self,
        way: Way,
        actors: impl Fn(&Scene, &Self) -> Vec<Actor>,
    ) -> Result<usize, Broken> {
        explore(way, || {
            let scene = self.scene();
            let actors = actors(&scene, self);
            let after = Box::new(|scene: &Scene| {
                let signed = scene.stage.lock().signed.clone();
                let replicas = 0..scene.replicas.len();
                let both = replicas.flat_map(|r| signed.iter().map(move |s| (r, s.clone())));
                let looks = both.map(|(r, s)| look(scene, r, &s, "at last"));
                looks.chain([what_is_left(scene)]).collect()
            });
            Play {
                scene,
                actors,
                after,
            }
        })
    }
}

fn of_secrets(setting: Setting, secrets: &[&str]) -> SessionRules {
    let mut rules = rules(secrets);
    if setting.slides {
        rules.settings.touch_interval = Duration::ZERO;
    }
    match setting.shared {
        true => SessionRules::express(rules.settings, "sess:".into(), rules.cookie, [], true),
        false => rules,
    }
}

/// Where news take a way of their own, all kinds of ways.
const WAYS: [News; 3] = [News::Tracked, News::Listened, News::AtOnce];

/// What has ended is not there any more, and what an application has written to a session
/// that lives is.
fn what_is_left(scene: &Scene) -> Actor {
    let (scene, stage) = (scene.clone(), scene.stage.clone());
    Actor::world("what is left", async move {
        let state = stage.lock();
        if !scene.setting.shared {
            return;
        }
        let mut bad = None;
        for signed in &state.signed {
            let cart = state.cart(&signed.key);
            let written = scene.written.lock().unwrap().get(&signed.key).copied();
            if state.is_over(signed) && cart.is_some() {
                bad = Some(format!("{} is still there", signed.key));
            }
            if !state.is_over(signed) && cart != Some(written.unwrap_or(0)) {
                bad = Some(format!("{cart:?} is left of {written:?}"));
            }
        }
        drop(state);
        bad.into_iter().for_each(|bad| stage.breaks(bad));
    })
}

/// The replica that is another one, where there are two.
fn other(scene: &Scene) -> usize {
    scene.replicas.len() - 1
}

fn look(scene: &Scene, replica: usize, signed: &Signed, name: &'static str) -> Actor {
    let (scene, cared, signed) = (scene.clone(), signed, signed.clone());
    Actor::on(replica, name, async move {
        scene.look(replica, &signed).await;
    })
    .caring_for(&[cared])
}

fn end(scene: &Scene, replica: usize, signed: &Signed, name: &'static str) -> Actor {
    let (scene, cared, signed) = (scene.clone(), signed, signed.clone());
    Actor::on(replica, name, async move {
        scene.end(replica, &signed).await;
    })
    .caring_for(&[cared])
}

fn end_all(scene: &Scene, replica: usize, cast: &Cast, name: &'static str) -> Actor {
    let (scene, by) = (scene.clone(), cast.session.clone());
    Actor::on(replica, name, async move {
        scene.end_all(replica, &by, &HeaderMap::new()).await;
    })
    .caring_for(&[&cast.one, &cast.two])
}

fn lose(scene: &Scene, replica: usize) -> Actor {
    let stage = scene.stage.clone();
    Actor::world("the channel is lost", async move { stage.lose(replica) })
}

/// Reports what was explored, which must not be less than it was.
fn enough(name: &str, least: usize, explored: Result<usize, Broken>) {
    let runs = explored.unwrap_or_else(|broken| panic!("{name}: {broken:?}"));
    println!("{name}: {runs} orders");
    assert!(runs >= least, "{name}: only {runs} orders");
}

/// Once to its end, in any one order, before the orders are tried.
fn prime(scene: &Scene, signed: &Signed) {
    let (on, signed) = (scene.clone(), signed.clone());
    let replica = other(scene);
    let look = Actor::on(replica, "before", async move {
        on.look_and(false, replica, &signed).await;
    });
    explore::alone(scene, look);
}

/// A replica that is told nothing, and a store that makes what it should change: both
/// must be found out, or nothing of the above says anything.
#[test]
fn what_is_wrong_is_found_out() {
    let broken = |fault, setting, prime_it: bool| {
        let cast = Cast::new(setting);
        cast.explore(|scene, cast| {
            if prime_it {
                prime(scene, &cast.one);
            }
            scene.stage.lock().fault = Some(fault);
            vec![
                look(scene, 1, &cast.one, "look"),
                end(scene, 0, &cast.one, "end"),
            ]
        })
    };
    let slides = Setting {
        slides: true,
        ..PLAIN
    };
    for (fault, setting, what) in [
        (Fault::Deaf, PLAIN, "brings"),
        (Fault::Upsert, slides, "makes"),
    ] {
        let broken = broken(fault, setting, true).unwrap_err();
        assert!(broken.what.contains(what), "{fault:?}: {broken:?}");
    }
}

/// The orders that are left out because they come to the same are the right ones: those
/// that are found by trying everything are as many.
#[test]
fn both_ways_find_the_same_orders() {
    for news in WAYS {
        let cast = Cast::new(Setting { news, ..PLAIN });
        let [some, all] = [Way::Races, Way::Plain].map(|way| {
            let explored = cast.explore_in(way, |scene, cast| {
                let there = other(scene);
                vec![
                    look(scene, there, &cast.one, "look"),
                    look(scene, there, &cast.one, "look again"),
                    end(scene, 0, &cast.one, "end"),
                ]
            });
            explored.unwrap()
        });
        println!("{news:?}: {some} orders");
        assert_eq!(some, all, "{news:?}");
    }
}
