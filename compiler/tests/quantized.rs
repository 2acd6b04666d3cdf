//! Quantized packages: the same bits at every level, with every number of threads and with every tile, natively and by
//! the interpreter, for every step of a picture, a prompt and an answer. And nothing is allocated for a token, and
//! refused memory is an error.

mod quantized_support;

use std::path::Path;

use kernels::Target;
use kernels::library::{Choice, Schedule};
use models::Recipe;
use quantized_support::{Built, Question, Run, build, build_tuned, levels, nano, tiny, with_schedule};
use tvlmc::lower::{Phase, Program};
use tvlmc::pipeline::{Options, prepare};
use tvlmc::tune::{Levels, Tuning};

const THREADS: [usize; 4] = [1, 2, 3, 7];

/// All levels of this processor and all thread counts have the bits of the first one, which is returned. The probe has
/// compared what a token allocates with nothing.
fn native(built: &Built, question: &Question) -> Run {
    let mut runs = built.runs(question, &THREADS).into_iter();
    let first = runs.next().expect("every processor we compile for has a level");
    let program = &built.assembled.prepared.program;
    let decoded = (question.tokens - 1) * program.decode.steps.len();
    let steps = program.vision.steps.len() + program.prefill.steps.len() + decoded + program.logits.steps.len();
    assert_eq!((first.tokens.len(), first.steps.lines().count()), (question.tokens, steps));
    let mut compared = 1;
    for run in runs {
        run.assert_same(&first.steps, &format!("{} with {} threads", first.level, first.threads));
        assert_eq!((&run.tokens, &run.prompt), (&first.tokens, &first.prompt));
        compared += 1;
    }
    assert_eq!(compared, levels().len() * THREADS.len());
    first
}

/// The interpreter has the same bits at all levels, this processor's or not.
fn interpreted(built: &Built, like: &Run) {
    let prepared = &built.assembled.prepared;
    for (level, target) in prepared.targets.iter().enumerate() {
        like.assert_same(&built.interpreted(prepared, level, like), &format!("the interpreter at {}", target.level()));
    }
}

/// So has the model lowered with the schedules that `tvlmc tune` tries, over the same packed weights. Every number takes
/// all of its candidates, several numbers at once.
fn other_tiles(built: &Built, recipe: &str, like: &Run, levels: usize) {
    let recipe = Recipe::named(recipe).unwrap_or_else(|e| panic!("{e}"));
    let ours = &built.assembled.prepared;
    let mut compared = 0;
    for (level, target) in ours.targets.iter().enumerate().take(levels) {
        for schedule in candidates(target.as_ref()) {
            let options = Options { recipe: Some(&recipe), ..Options::default() };
            let prepared = prepare(&built.assembled.checkpoint, &options).unwrap_or_else(|e| panic!("{e}"));
            let other = with_schedule(prepared, level, schedule);
            assert_eq!(other.program.packs.total(), ours.program.packs.total(), "weights are packed alike");
            assert!(!same_kernels(&other.program, &ours.program, level), "{schedule:?} gives the same kernels");
            let what = format!("{} with {schedule:?}", target.level());
            like.assert_same(&built.interpreted(&other, 0, like), &what);
            compared += 1;
        }
    }
    assert!(compared >= 5, "only {compared} schedules");
}

/// Schedules in which every number takes all the values that `tvlmc tune` tries, several numbers at once.
fn candidates(target: &dyn Target) -> Vec<Schedule> {
    let base = Schedule::new(target);
    let all = Choice::ALL.map(|choice| (choice, choice.candidates(&base, target)));
    let most = all.iter().map(|(_, values)| values.len()).max().unwrap_or(0);
    let one = |i: usize| {
        let mut schedule = base;
        for (choice, values) in all.iter().filter(|(_, values)| !values.is_empty()) {
            choice.take(&mut schedule, &values[i % values.len()]);
        }
        schedule
    };
    (0..most).map(one).collect()
}

/// As [`other_tiles`] for a model that the interpreter takes too long for: all levels of a package take their candidates
/// at once, and the package runs.
fn other_tiles_natively(built: &Built, checkpoint: &Path, recipe: &str, question: &Question, like: &Run) {
    let targets = &built.assembled.prepared.targets;
    let all: Vec<(String, Vec<Schedule>)> =
        targets.iter().map(|t| (t.level().to_string(), candidates(t.as_ref()))).collect();
    let most = all.iter().map(|(_, schedules)| schedules.len()).max().unwrap_or(0);
    let mut compared = 0;
    for i in 0..most {
        let levels = all
            .iter()
            .map(|(level, schedules)| Levels { level: level.clone(), schedule: schedules[i % schedules.len()] });
        let tuning = Tuning { processor: "any".to_string(), levels: levels.collect() };
        for run in build_tuned(checkpoint, recipe, Some(tuning)).runs(question, &[1, 2]) {
            run.assert_same(&like.steps, &format!("{} with candidates {i}", run.level));
            assert_eq!(run.tokens, like.tokens);
            compared += 1;
        }
    }
    assert_eq!(compared, most * levels().len() * 2);
    assert!(most >= 3, "only {most} candidates");
}

/// Whether the one level of `a` has the kernels of a level of `b`.
fn same_kernels(a: &Program, b: &Program, level: usize) -> bool {
    fn phases(p: &Program) -> [&Phase; 3] {
        [&p.vision, &p.prefill, &p.decode]
    }
    let steps = |(a, b): (&Phase, &Phase)| a.steps.iter().zip(&b.steps).all(|(a, b)| a.kernels[0] == b.kernels[level]);
    phases(a).into_iter().zip(phases(b)).all(steps)
}

/// Most threads: far more than there are processors, and than most steps have units.
const MANY: usize = 64;

/// Guessed tokens change no token and no bit, for these numbers of threads at the best level and for some at the others.
/// Returns how many guesses were right.
fn guessed(built: &Built, threads: &[usize]) -> usize {
    let question = Question { prompt: "a b a b a b a b a", picture: (50, 31), tokens: 24 };
    let levels = levels();
    let some = levels.iter().skip(1).flat_map(|level| THREADS.map(|n| format!("{level}:{n}")));
    let all = threads.iter().map(|n| format!("{}:{n}", levels[0])).chain(some);
    let told = built.probe_all(&question, Some("guess"), &all.collect::<Vec<String>>());
    let mut runs = told.split("run ").skip(1).map(|run| run.split_once('\n').expect("lines"));
    let (_, first) = runs.next().expect("one thread");
    let mut compared = 1;
    for (who, run) in runs {
        assert_eq!(run, first, "{who}");
        compared += 1;
    }
    assert_eq!(compared, threads.len() + (levels.len() - 1) * THREADS.len());
    let numbers =
        |line: &str| -> Vec<usize> { line.split(' ').skip(1).map(|n| n.parse().expect("a number")).collect() };
    first.lines().map(numbers).filter(|line| line.len() == 3).map(|line| line[2]).sum()
}

fn check(layout: &str, recipe: &str, threads: &[usize]) {
    let question = Question { prompt: "What is this?", picture: (50, 31), tokens: 5 };
    let built = build(&nano(layout), recipe);
    let run = native(&built, &question);
    interpreted(&built, &run);
    let most = if layout == "odd" { built.assembled.prepared.targets.len() } else { 1 };
    other_tiles(&built, recipe, &run, most);
    println!("{layout} as {recipe}: {} guesses were right", guessed(&built, threads));
    let refused = built.probe(&question, &["refuse".to_string(), format!("{}:2", levels()[0])]);
    println!("{layout} as {recipe}: {}", refused.lines().last().unwrap_or_default());
}

#[test]
fn int8_of_hf_has_one_result() {
    check("hf", "int8", &THREADS);
}

#[test]
fn int4_of_llava_has_one_result() {
    check("llava", "int4", &THREADS);
}

#[test]
fn int8_of_odd_sizes_has_one_result() {
    check("odd", "int8", &THREADS);
}

#[test]
fn int4_of_odd_sizes_has_one_result() {
    check("odd", "int4", &(1..=MANY).collect::<Vec<usize>>());
}

/// Both recipes natively; the interpreter for the best level, where `simulate`.
fn check_large(checkpoint: &Path, picture: (usize, usize), simulate: bool) {
    let question = Question { prompt: "What is shown in this picture?", picture, tokens: 5 };
    for recipe in ["int8", "int4"] {
        let built = build(checkpoint, recipe);
        let run = native(&built, &question);
        if simulate {
            let told = built.interpreted(&built.assembled.prepared, 0, &run);
            run.assert_same(&told, "the interpreter at the best level");
        }
        other_tiles_natively(&built, checkpoint, recipe, &question, &run);
    }
}

#[test]
#[ignore = "minutes; cargo xtask full"]
fn demo_has_one_result() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo");
    check_large(&demo, (300, 200), true);
}

#[test]
#[ignore = "minutes; cargo xtask full"]
fn tiny_has_one_result() {
    if let Some(tiny) = tiny() {
        check_large(&tiny, (700, 500), false);
    }
}
