//! Somebody else who encodes pictures: what it makes is checked, and the processor does what it does not.

mod common;

use common::*;
use runtime_min::{Delegate, Error, Info, Model, OpenOptions, Options, Pressure, Rgb8, Side};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// What the next call of a [`Helper`] does.
#[derive(Clone, Copy)]
enum Does {
    /// What the program does, and one more for the first value.
    Well,
    /// Says that it cannot.
    Refuses,
    /// Leaves the last value out.
    TooLittle,
    /// Puts this at `[1, 2]`.
    Puts(f32),
}

struct Helper {
    can: Result<(), String>,
    does: Arc<dyn Fn(usize) -> Does + Send + Sync>,
    calls: Arc<AtomicUsize>,
}

impl Delegate for Helper {
    fn name(&self) -> &str {
        "helper"
    }

    fn supports(&self, info: &Info) -> Result<(), String> {
        assert_eq!(info.hidden, 8);
        self.can.clone()
    }

    fn vision(&self, rgb: &[u8], side: &Side, rows: &mut [f32]) -> Result<(), String> {
        assert_eq!((rgb.len(), rows.len()), (side.side * side.side * 3, side.tokens * 8));
        let sum: f32 = rgb.iter().map(|&byte| f32::from(byte)).sum();
        let last = rows.len() - 1;
        match (self.does)(self.calls.fetch_add(1, SeqCst)) {
            Does::Refuses => return Err("the engine is taken".into()),
            Does::TooLittle => rows[..last].fill(1.0),
            does => {
                for (row, floats) in rows.chunks_mut(8).enumerate() {
                    floats.fill(sum + row as f32);
                }
                rows[0] += 1.0;
                if let Does::Puts(value) = does {
                    rows[10] = value;
                }
            }
        }
        Ok(())
    }
}

fn helped(
    can: Result<(), String>,
    does: impl Fn(usize) -> Does + Send + Sync + 'static,
) -> (Model<Fake>, Arc<AtomicUsize>) {
    let mut model = Model::from_bytes("fake", &fake_file(), &OpenOptions::default()).expect("intact");
    assert_eq!(model.delegate(), None);
    let calls = Arc::new(AtomicUsize::new(0));
    model.set_delegate(Box::new(Helper { can, does: Arc::new(does), calls: Arc::clone(&calls) }));
    (model, calls)
}

/// Rows of `n` pictures, one after the other.
fn rows(model: &Model<Fake>, n: usize) -> Vec<Vec<f32>> {
    let mut chat = model.session(Options { threads: Some(2), ..Options::default() }).expect("a session");
    let bytes = [3; SIDE * SIDE * 3];
    let picture = Rgb8::new(SIDE, SIDE, &bytes).expect("square");
    (0..n).map(|_| chat.image(&picture).expect("encodes").rows().to_vec()).collect()
}

#[test]
fn its_rows_are_the_pictures() {
    let own = rows(&model(), 1).remove(0);
    let (model, calls) = helped(Ok(()), |_| Does::Well);
    let mut expected = own;
    expected[0] += 1.0;
    assert_eq!(rows(&model, 2), [expected.clone(), expected]);
    let told = model.delegate().expect("one");
    assert_eq!((told.name, told.in_use, told.encoded, told.fell_back, told.reason), ("helper", true, 2, 0, None));
    assert_eq!(calls.load(SeqCst), 2);
    // Also at a side that pressure chose.
    let mut chat = model.session(Options::default()).expect("a session");
    chat.control().set_pressure(Pressure::Critical);
    let bytes = [3; 12];
    let image = chat.image(&Rgb8::new(2, 2, &bytes).expect("square")).expect("encodes");
    assert_eq!((image.tokens(), image.rows()[0]), (SMALL_TOKENS, 37.0));
}

#[test]
fn one_that_cannot_is_not_asked() {
    let (model, calls) = helped(Err("made for another model".into()), |_| Does::Well);
    assert_eq!(rows(&model, 2), rows(&common::model(), 2));
    let told = model.delegate().expect("one");
    assert_eq!((told.in_use, told.encoded, told.fell_back), (false, 0, 0));
    assert_eq!(told.reason, Some("made for another model"));
    assert_eq!(calls.load(SeqCst), 0);
}

#[test]
fn a_picture_that_it_refuses_is_the_processors() {
    let own = rows(&model(), 1).remove(0);
    let (model, calls) = helped(Ok(()), |call| if call == 1 { Does::Refuses } else { Does::Well });
    let made = rows(&model, 3);
    assert!(made[0] != own && made[1] == own && made[2] == made[0]);
    let told = model.delegate().expect("one");
    assert_eq!((told.in_use, told.encoded, told.fell_back), (true, 2, 1));
    assert_eq!((told.reason, calls.load(SeqCst)), (Some("the engine is taken"), 3));
}

#[test]
fn rows_that_are_no_numbers_end_it() {
    let own = rows(&model(), 1).remove(0);
    for (does, word) in [
        (Does::Puts(f32::NAN), "NaN at [1, 2] of [3, 8]"),
        (Does::Puts(f32::INFINITY), "an infinity at [1, 2]"),
        (Does::TooLittle, "were not all made: NaN at [2, 7]"),
    ] {
        let (model, calls) = helped(Ok(()), move |_| does);
        assert_eq!(rows(&model, 3), [own.clone(), own.clone(), own.clone()]);
        let told = model.delegate().expect("one");
        assert_eq!((told.in_use, told.encoded, told.fell_back, calls.load(SeqCst)), (false, 0, 1, 1));
        assert!(told.reason.is_some_and(|reason| reason.contains(word)), "{told:?}");
    }
}

/// A refusal that was borne says nothing about the end.
#[test]
fn what_ended_it_is_told_rather_than_what_came_first() {
    let (model, calls) = helped(Ok(()), |call| if call == 0 { Does::Refuses } else { Does::Puts(f32::NAN) });
    rows(&model, 1);
    let told = model.delegate().expect("one");
    assert_eq!((told.in_use, told.reason), (true, Some("the engine is taken")));
    rows(&model, 2);
    let told = model.delegate().expect("one");
    assert_eq!((told.in_use, told.fell_back, calls.load(SeqCst)), (false, 2, 2));
    assert!(told.reason.is_some_and(|reason| reason.contains("NaN at [1, 2]")), "{told:?}");
}

#[test]
fn a_picture_that_was_cancelled_meanwhile_is_none() {
    let mut model = Model::<Fake>::from_bytes("fake", &fake_file(), &OpenOptions::default()).expect("intact");
    let token = Arc::new(std::sync::Mutex::new(None::<runtime_min::CancelToken>));
    let inside = Arc::clone(&token);
    let does = move |_| {
        inside.lock().expect("no panic").as_ref().inspect(|token| token.cancel());
        Does::Well
    };
    model.set_delegate(Box::new(Helper { can: Ok(()), does: Arc::new(does), calls: Arc::default() }));
    let mut chat = model.session(Options::default()).expect("a session");
    *token.lock().expect("no panic") = Some(chat.cancel_token());
    let bytes = [3; SIDE * SIDE * 3];
    let picture = Rgb8::new(SIDE, SIDE, &bytes).expect("square");
    assert_eq!(chat.image(&picture).map(|_| ()), Err(Error::Cancelled));
    *token.lock().expect("no panic") = None;
    chat.image(&picture).expect("as ever");
}

/// Sessions share one delegate.
#[test]
fn threads_use_one_together() {
    let (model, calls) = helped(Ok(()), |call| if call % 3 == 0 { Does::Refuses } else { Does::Well });
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| rows(&model, 30));
        }
    });
    let told = model.delegate().expect("one");
    assert_eq!((calls.load(SeqCst), told.encoded, told.fell_back), (120, 80, 40));
    assert_eq!(told.reason, Some("the engine is taken"));
}
