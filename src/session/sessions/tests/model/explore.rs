//! Runs a scenario in every order in which its parts can happen.
//!
//! A run is a list of actions. The first time, each is the first of those that are
//! possible. Then the run is looked through for actions that concern each other and
//! could have come in the other order; where that is so, the run is repeated up to
//! there and goes on the other way (depth first). Actions that do not concern each
//! other are not tried in both orders, since the result is the same; so the number of
//! runs is that of the orders that differ. (P. Abdulla and others, "Optimal Dynamic
//! Partial Order Reduction", 2014, section 5: source sets and sleep sets.)

use std::fmt;

use super::look::{Actor, Scene};
use super::stage::{BACKGROUND, CallId};

/// More runs than this are too many to be waited for.
const MOST: usize = 100_000;

/// One step of a run.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Action {
    /// Somebody goes on.
    Step(usize),
    /// A command happens at the store.
    Apply(CallId),
    /// Its answer comes back, and whoever asked goes on.
    Answer(CallId),
    /// A channel brings something.
    Hear(usize),
}

/// An action with what it concerns.
#[derive(Clone, Copy)]
struct Choice {
    action: Action,
    /// Whose it is; nothing of one owner happens in another order.
    owner: Option<u8>,
    /// The replicas whose state it reads or writes.
    replicas: u8,
    /// Of the store: what it reads or writes, a bit for each name.
    reads: u64,
    writes: u64,
}

/// A step of the present run, with what else there was.
struct Frame {
    choices: Vec<Choice>,
    /// What leads to nothing new from here.
    asleep: Vec<Choice>,
    /// What was tried, or is to be.
    tried: Vec<Choice>,
    to_try: Vec<Choice>,
    chosen: Choice,
}

/// What must not be, and how it comes about.
pub struct Broken {
    pub what: String,
    pub steps: Vec<String>,
}

impl fmt::Debug for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.what)?;
        for (number, step) in self.steps.iter().enumerate() {
            writeln!(f, "{number:3}. {step}")?;
        }
        Ok(())
    }
}

/// How the orders are found.
#[derive(Clone, Copy, PartialEq)]
pub enum Way {
    /// By looking which actions concern each other.
    Races,
    /// By trying everything that does not sleep: slower, simpler, and to the same end.
    Plain,
}

type After = Box<dyn FnOnce(&Scene) -> Vec<Actor>>;

/// A scenario that is ready to run.
pub struct Play {
    pub scene: Scene,
    pub actors: Vec<Actor>,
    /// What happens after everything else, alone.
    pub after: After,
}

/// Runs a scenario in every order. Answers in how many, or the first one in which
/// something is broken.
pub fn explore(way: Way, prepare: impl Fn() -> Play) -> Result<usize, Broken> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut frames: Vec<Frame> = Vec::new();
    let mut runs = 0;
    loop {
        let mut run = Run::new(prepare(), &runtime);
        let replayed = frames.len();
        let same = run.repeat(&frames);
        let complete = same && run.go_on(&mut frames, way);
        if run.shares_a_stripe() {
            // By chance one change costs another copy: not the same run.
            frames.truncate(replayed);
            continue;
        }
        assert!(same, "the same is not always the same");
        if complete {
            runs += 1;
            assert!(runs < MOST, "too many orders");
            run.finish();
        }
        if let Some(what) = run.broken() {
            let steps = run.steps.iter().map(|step| run.describe(*step)).collect();
            return Err(Broken { what, steps });
        }
        if !back(&mut frames) {
            return Ok(runs);
        }
    }
}

/// Lets somebody do something to its end, while nobody else does anything.
pub fn alone(scene: &Scene, actor: Actor) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let play = Play {
        scene: scene.clone(),
        actors: vec![actor],
        after: Box::new(|_| Vec::new()),
    };
    let mut run = Run::new(play, &runtime);
    while let Some(choice) = run.choices().first() {
        run.perform(choice.action);
    }
    assert_eq!(run.idle(), [""; 0]);
}

/// Goes back to the last action for which another is to be tried, and takes that.
fn back(frames: &mut Vec<Frame>) -> bool {
    while let Some(frame) = frames.last_mut() {
        frame.tried.push(frame.chosen);
        if let Some(next) = frame.next() {
            frame.chosen = next;
            return true;
        }
        frames.pop();
    }
    false
}

/// Notes where the actions of a run, and one that could follow it, could have come in
/// another order.
fn note_races(frames: &mut [Frame], following: Option<Choice>) {
    let events: Vec<Choice> = frames.iter().map(|frame| frame.chosen).collect();
    let events: Vec<Choice> = events.into_iter().chain(following).collect();
    assert!(events.len() < 128, "a run is too long");
    // What happens before each event, as a set of their numbers.
    let mut before: Vec<u128> = Vec::new();
    for (later, event) in events.iter().enumerate() {
        let cause = (0..later).rfind(|n| !frames[*n].offers(event.action));
        let mut known = cause.map_or(0, |cause| before[cause] | 1 << cause);
        let mut races = Vec::new();
        for earlier in (0..later).rev() {
            let other = &events[earlier];
            if event.concerns(other) {
                let same = event.owner.is_some() && event.owner == other.owner;
                if known & (1 << earlier) == 0 && !same {
                    races.push(earlier);
                }
                known |= before[earlier] | 1 << earlier;
            }
        }
        before.push(known);
        for earlier in races {
            // What does not need the earlier one, and of that what needs nothing else.
            let free = (earlier + 1..later)
                .filter(|n| before[*n] & (1 << earlier) == 0)
                .chain([later]);
            let free: Vec<usize> = free.collect();
            let set = free.iter().fold(0_u128, |set, n| set | 1 << n);
            let firsts = free.iter().filter(|n| before[**n] & set == 0);
            let firsts: Vec<Action> = firsts.map(|n| events[*n].action).collect();
            frames[earlier].want(&firsts);
        }
    }
}

impl Frame {
    fn next(&self) -> Option<Choice> {
        let out = |choice: &Choice| {
            let mut out = self.asleep.iter().chain(&self.tried);
            out.any(|other| other.action == choice.action)
        };
        self.to_try.iter().find(|choice| !out(choice)).copied()
    }

    fn offers(&self, action: Action) -> bool {
        self.choices.iter().any(|choice| choice.action == action)
    }

    /// One of these is to be tried here as well; if none is possible, whatever is.
    fn want(&mut self, firsts: &[Action]) {
        let known = self.tried.iter().chain(&self.to_try).chain([&self.chosen]);
        let mut known = known.map(|choice| choice.action);
        if known.any(|action| firsts.contains(&action)) {
            return;
        }
        drop(known);
        let wanted = |choice: &&Choice| firsts.contains(&choice.action);
        match self.choices.iter().find(wanted).copied() {
            Some(choice) => self.to_try.push(choice),
            None => self.to_try.clone_from(&self.choices),
        }
    }

    /// What sleeps after the chosen action.
    fn asleep_then(&self) -> Vec<Choice> {
        let both = self.asleep.iter().chain(&self.tried);
        both.filter(|other| !other.concerns(&self.chosen))
            .copied()
            .collect()
    }
}

impl Choice {
    fn concerns(&self, other: &Self) -> bool {
        let same = self.owner.is_some() && self.owner == other.owner;
        let here = self.replicas & other.replicas != 0;
        let there = self.writes & (other.reads | other.writes) | other.writes & self.reads;
        same || here || there != 0
    }
}

struct Run<'r> {
    play: Play,
    runtime: &'r tokio::runtime::Runtime,
    steps: Vec<Action>,
}

impl<'r> Run<'r> {
    fn new(play: Play, runtime: &'r tokio::runtime::Runtime) -> Self {
        Self {
            play,
            runtime,
            steps: Vec::new(),
        }
    }

    /// Does the same as the last time. Answers whether it could.
    fn repeat(&mut self, frames: &[Frame]) -> bool {
        frames.iter().all(|frame| {
            let choices = self.choices();
            let can = choices
                .iter()
                .any(|choice| choice.action == frame.chosen.action);
            if can {
                self.perform(frame.chosen.action);
            }
            can
        })
    }

    /// From where it is to its end, or to where everything possible sleeps.
    fn go_on(&mut self, frames: &mut Vec<Frame>, way: Way) -> bool {
        loop {
            let choices = self.choices();
            if choices.is_empty() {
                note_races(frames, None);
                return true;
            }
            let asleep = frames.last().map_or_else(Vec::new, Frame::asleep_then);
            let sleeps =
                |choice: &&Choice| asleep.iter().any(|other| other.action == choice.action);
            let Some(next) = choices.iter().find(|choice| !sleeps(choice)).copied() else {
                // Somebody else's run goes on from here; its orders concern this one, too.
                choices
                    .iter()
                    .for_each(|choice| note_races(frames, Some(*choice)));
                return false;
            };
            let mut frame = Frame {
                chosen: next,
                choices,
                asleep,
                tried: Vec::new(),
                to_try: Vec::new(),
            };
            if way == Way::Plain {
                frame.to_try.clone_from(&frame.choices);
            }
            self.perform(next.action);
            frames.push(frame);
        }
    }

    /// What whoever asked cares for.
    fn cares(&self, id: CallId) -> u64 {
        let actor = self.play.actors.get(usize::from(id.0));
        actor.map_or(0, |actor| actor.cares)
    }

    fn choices(&self) -> Vec<Choice> {
        let state = self.play.scene.stage.lock();
        let mut choices = Vec::new();
        for (number, actor) in self.play.actors.iter().enumerate() {
            if actor.is_ready() {
                choices.push(Choice {
                    action: Action::Step(number),
                    owner: Some(number as u8),
                    replicas: actor.replica.map_or(u8::MAX, |replica| 1 << replica),
                    reads: actor.cares,
                    writes: if actor.replica.is_none() { u64::MAX } else { 0 },
                });
            }
        }
        for id in state.applicable() {
            let (reads, writes) = state.concerns(id);
            let at_once = state.tells_at_once() && writes != 0;
            choices.push(Choice {
                action: Action::Apply(id),
                owner: Some(id.0),
                replicas: if at_once { u8::MAX } else { 0 },
                reads,
                writes,
            });
        }
        for id in state.answerable() {
            choices.push(Choice {
                action: Action::Answer(id),
                owner: Some(id.0),
                replicas: 1 << state.replica_of(id),
                reads: self.cares(id),
                writes: 0,
            });
        }
        for replica in 0..self.play.scene.replicas.len() {
            if state.can_hear(replica) {
                choices.push(Choice {
                    action: Action::Hear(replica),
                    owner: None,
                    replicas: 1 << replica,
                    reads: state.lesson(replica),
                    writes: 0,
                });
            }
        }
        choices
    }

    fn perform(&mut self, action: Action) {
        self.steps.push(action);
        let stage = self.play.scene.stage.clone();
        match action {
            Action::Step(number) => self.step(number),
            Action::Apply(id) => stage.apply(id),
            Action::Answer(id) => {
                stage.lock().deliver(id);
                let number = usize::from(id.0);
                if id.0 < BACKGROUND && self.play.actors[number].is_ready() {
                    self.step(number);
                }
            }
            Action::Hear(replica) => stage.hear(replica),
        }
        if self.play.scene.setting.slides {
            // What a replica does on its own goes on as soon as it can.
            self.runtime.block_on(async {
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                }
            });
        }
    }

    fn step(&mut self, number: usize) {
        let stage = &self.play.scene.stage;
        stage.lock().actor = Some(number as u8);
        let _inside = self.runtime.enter();
        self.play.actors[number].step();
        stage.lock().actor = None;
    }

    /// Everybody is done; then once more, one after the other.
    fn finish(&mut self) {
        let idle: Vec<&str> = self.idle();
        if !idle.is_empty() {
            let what = format!("nobody goes on with {idle:?}");
            return self.play.scene.stage.breaks(what);
        }
        let after = std::mem::replace(&mut self.play.after, Box::new(|_| Vec::new()));
        for actor in after(&self.play.scene) {
            self.play.actors.push(actor);
            while let Some(choice) = self.choices().first() {
                self.perform(choice.action);
            }
        }
        let idle = self.idle();
        if !idle.is_empty() {
            let what = format!("nobody goes on with {idle:?}");
            self.play.scene.stage.breaks(what);
        }
    }

    fn idle(&self) -> Vec<&'static str> {
        let actors = self.play.actors.iter();
        actors
            .filter(|actor| !actor.is_done())
            .map(|actor| actor.name)
            .collect()
    }

    fn broken(&self) -> Option<String> {
        self.play.scene.stage.lock().broken.clone()
    }

    fn shares_a_stripe(&self) -> bool {
        let names = self.play.scene.stage.lock().names();
        self.play.scene.replicas.iter().any(|sessions| {
            let cache = &sessions.shared().cache;
            let mut stripes: Vec<_> = names.iter().map(|name| cache.stripe_of(name)).collect();
            stripes.sort_unstable();
            stripes.windows(2).any(|pair| pair[0] == pair[1])
        })
    }

    fn describe(&self, action: Action) -> String {
        let state = self.play.scene.stage.lock();
        let whose = |id: CallId| match self.play.actors.get(usize::from(id.0)) {
            Some(actor) => actor.name.to_owned(),
            None => format!("replica {}", id.0 - BACKGROUND),
        };
        match action {
            Action::Step(number) => format!("{} goes on", self.play.actors[number].name),
            Action::Apply(id) => format!("{}: {} happens", whose(id), state.describe(id)),
            Action::Answer(id) => format!("{}: {} is answered", whose(id), state.describe(id)),
            Action::Hear(replica) => format!("replica {replica} hears"),
        }
    }
}
