//! The functions of `tvlm.h` as the Java class `dev.tvlmc.Native` declares them.
//!
//! They do what the C functions do and say how it went in the same way: the result is 0 or one of `tvlm_code`, and a message
//! goes into an array of the caller. Java makes exceptions of that, so nothing here throws. Texts are arrays of UTF-8, as the
//! texts of JNI are not UTF-8; handles are numbers; results are arrays with one place for each number.
//!
//! Java hands over a pointer to a pointer to a table of functions. The table's order is part of the JNI specification and
//! only ever grows at its end, so the few functions that are needed are taken from their places, and neither a C header nor
//! a C compiler for Android is needed to build this.

#![allow(clippy::too_many_arguments, reason = "arguments are Java's, and arrays of options would have no types")]

use crate::given;
use crate::model::{self, Info, Model, OpenOptions};
use crate::picture::{self, Image, Pixels};
use crate::session::{self, Options, Outcome, Session};
use crate::status::{Failure, Problem, report};
use core::ffi::{CStr, c_char, c_void};
use core::ptr;
use runtime_min::Program;

/// `JNIEnv *`: the functions that the calling thread has. It is valid during the call that it is an argument of.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Env(*const *const *const c_void);

/// `jobject`: a reference that lives during the call; null is Java's.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Object(*mut c_void);

/// `jbyteArray`.
pub type Bytes = Object;

/// `jlongArray`.
pub type Longs = Object;

/// `jmethodID`.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Method(*mut c_void);

/// `jvalue` that holds an object.
#[repr(C)]
union Value {
    object: Object,
    /// All of its members have room for this.
    _long: i64,
}

/// Functions by their place in the table, as numbered in the chapter "JNI Functions" of the specification.
macro_rules! functions {
    ($($at:literal $name:ident($($argument:ident: $ty:ty),*) $(-> $result:ty)?;)*) => {
        impl Env {
            $(
                /// # Safety
                /// The arguments are what the specification asks for; an exception is pending only where it allows that.
                unsafe fn $name(self, $($argument: $ty),*) $(-> $result)? {
                    type Function = unsafe extern "C" fn(Env $(, $ty)*) $(-> $result)?;
                    // SAFETY: an `Env` is Java's, whose table has this function in this place.
                    let function = unsafe { core::mem::transmute::<*const c_void, Function>(*(*self.0).add($at)) };
                    // SAFETY: passed on.
                    unsafe { function(self $(, $argument)*) }
                }
            )*
        }
    };
}

functions! {
    23 delete_local_ref(object: Object);
    31 get_object_class(object: Object) -> Object;
    33 get_method_id(class: Object, name: *const c_char, signature: *const c_char) -> Method;
    51 call_int_method_a(object: Object, method: Method, arguments: *const Value) -> i32;
    171 get_array_length(array: Object) -> i32;
    176 new_byte_array(length: i32) -> Bytes;
    200 get_byte_array_region(array: Bytes, start: i32, length: i32, to: *mut u8);
    204 get_long_array_region(array: Longs, start: i32, length: i32, to: *mut i64);
    208 set_byte_array_region(array: Bytes, start: i32, length: i32, from: *const u8);
    212 set_long_array_region(array: Longs, start: i32, length: i32, from: *const i64);
    228 exception_check() -> u8;
    230 get_direct_buffer_address(buffer: Object) -> *mut u8;
    231 get_direct_buffer_capacity(buffer: Object) -> i64;
}

impl Env {
    /// Whether Java code that was called threw: until the call returns to Java, little may be done.
    fn has_thrown(self) -> bool {
        // SAFETY: allowed at any time.
        unsafe { self.exception_check() != 0 }
    }

    /// The elements of an array.
    ///
    /// # Safety
    /// An array of bytes, or null.
    unsafe fn bytes(self, name: &'static str, array: Bytes) -> Result<Vec<u8>, Problem> {
        if array.0.is_null() {
            return Err(Problem::argument(name, "is null"));
        }
        // SAFETY: an array, of which as many elements are taken as it has.
        unsafe {
            let length = self.get_array_length(array);
            let mut bytes = vec![0; length as usize];
            self.get_byte_array_region(array, 0, length, bytes.as_mut_ptr());
            Ok(bytes)
        }
    }

    /// A text with a zero byte behind it.
    ///
    /// # Safety
    /// As of [`Env::bytes`].
    unsafe fn text(self, name: &'static str, array: Bytes) -> Result<Vec<u8>, Problem> {
        // SAFETY: passed on.
        let mut bytes = unsafe { self.bytes(name, array)? };
        if bytes.contains(&0) {
            return Err(Problem::argument(name, "has a character U+0000, which ends texts"));
        }
        bytes.push(0);
        Ok(bytes)
    }

    /// Fills the beginning of an array, as far as it goes.
    ///
    /// # Safety
    /// An array of bytes, or null.
    unsafe fn give_bytes(self, array: Bytes, bytes: &[u8]) {
        if !array.0.is_null() && !self.has_thrown() {
            // SAFETY: an array, and no more than fits.
            unsafe {
                let length = (bytes.len() as i32).min(self.get_array_length(array));
                self.set_byte_array_region(array, 0, length, bytes.as_ptr());
            }
        }
    }

    /// Fills the beginning of an array, as far as it goes.
    ///
    /// # Safety
    /// An array of longs, or null.
    unsafe fn give_longs(self, array: Longs, longs: &[i64]) {
        if !array.0.is_null() && !self.has_thrown() {
            // SAFETY: an array, and no more than fits.
            unsafe {
                let length = (longs.len() as i32).min(self.get_array_length(array));
                self.set_long_array_region(array, 0, length, longs.as_ptr());
            }
        }
    }

    /// Runs `work`, puts its message into `error` and returns its number.
    ///
    /// # Safety
    /// `error` is an array of bytes, or null.
    unsafe fn report(self, error: Bytes, work: impl FnOnce() -> Result<(), Problem>) -> i32 {
        let mut failure = Failure { size: size_of::<Failure>(), code: 0, message: [0; 1012] };
        // SAFETY: it has the size that it says.
        let code = unsafe { report(&mut failure, work) };
        if code != 0 {
            let message = failure.message.map(|c| c as u8);
            // SAFETY: passed on.
            unsafe { self.give_bytes(error, &message) };
        }
        code
    }

    /// Gives a new handle as a number.
    ///
    /// # Safety
    /// `to` is an array of longs, or null.
    unsafe fn give_handle<T>(self, to: Longs, handle: *mut T) {
        // SAFETY: passed on.
        unsafe { self.give_longs(to, &[handle.expose_provenance() as i64]) };
    }
}

/// What a number stands for that [`Env::give_handle`] gave.
fn handle<T>(number: i64) -> *mut T {
    ptr::with_exposed_provenance_mut(number as usize)
}

fn count(name: &'static str, value: i32) -> Result<u32, Problem> {
    u32::try_from(value).map_err(|_| Problem::argument(name, "is negative"))
}

/// # Safety
/// Arguments are of the types that their names in `Native` have, as in all functions below; numbers for handles are 0 or of
/// handles that live.
pub unsafe fn model_open<P: Program>(
    env: Env,
    path: Bytes,
    threads: i32,
    verify: i32,
    residence: i32,
    level: Bytes,
    model: Longs,
    error: Bytes,
) -> i32 {
    let open = || {
        // SAFETY: passed on.
        let path = unsafe { env.text("path", path)? };
        // SAFETY: passed on.
        let level = if level.0.is_null() { None } else { Some(unsafe { env.text("options.level", level)? }) };
        let mut options: OpenOptions = given::blank();
        options.threads = count("options.threads", threads)?;
        options.verify = count("options.verify", verify)?;
        options.residence = count("options.residence", residence)?;
        options.level = level.as_ref().map_or(ptr::null(), |level| level.as_ptr().cast());
        let mut opened: *mut Model<P> = ptr::null_mut();
        // SAFETY: texts end with zeros, and the rest is ours.
        unsafe {
            model::open(path.as_ptr().cast(), &options, &mut opened)?;
            env.give_handle(model, opened);
        }
        Ok(())
    };
    // SAFETY: passed on.
    unsafe { env.report(error, open) }
}

/// Fills `info` with the numbers of `tvlm_model_info` in their order, how many sides there are, and side and tokens of each,
/// and `level` with a text that ends with a zero byte.
///
/// # Safety
/// As of [`model_open`].
pub unsafe fn model_info<P: Program>(env: Env, model: i64, info: Longs, level: Bytes, error: Bytes) -> i32 {
    let tell = || {
        let mut told: Info = given::blank();
        // SAFETY: passed on; the level lives as long as the handle.
        let name = unsafe {
            model::info::<P>(handle(model), &mut told)?;
            CStr::from_ptr(told.level)
        };
        // SAFETY: as many are there, which live as long as the handle.
        let sides = unsafe { core::slice::from_raw_parts(told.sides, told.side_count) };
        let numbers = [
            told.image_side.into(),
            told.tokens_per_image.into(),
            told.max_context.into(),
            told.max_speculation.into(),
            told.arena_bytes as i64,
            told.scratch_bytes_per_thread as i64,
            told.weights_bytes as i64,
            told.side_count as i64,
        ];
        let sides = sides.iter().flat_map(|known| [known.side.into(), known.tokens.into()]);
        let numbers: Vec<i64> = numbers.into_iter().chain(sides).collect();
        // SAFETY: passed on.
        unsafe {
            env.give_longs(info, &numbers);
            env.give_bytes(level, name.to_bytes_with_nul());
        }
        Ok(())
    };
    // SAFETY: passed on.
    unsafe { env.report(error, tell) }
}

/// Fills `bytes` with what [`model::trim`] gave back.
///
/// # Safety
/// As of [`model_open`].
pub unsafe fn model_trim<P: Program>(env: Env, model: i64, bytes: Longs, error: Bytes) -> i32 {
    let trim = || {
        let mut given = 0;
        // SAFETY: passed on.
        unsafe {
            model::trim::<P>(handle(model), &mut given)?;
            env.give_longs(bytes, &[given as i64]);
        }
        Ok(())
    };
    // SAFETY: passed on.
    unsafe { env.report(error, trim) }
}

/// # Safety
/// As of [`model_open`]; the number is not used again.
pub unsafe fn model_close<P: Program>(env: Env, model: i64, error: Bytes) -> i32 {
    // SAFETY: passed on.
    unsafe { env.report(error, || model::close::<P>(handle(model))) }
}

/// `tvlm_session_options`.
fn chosen(
    (threads, max_new_tokens): (i32, i32),
    (temperature, top_k, top_p): (f32, i32, f32),
    (repetition_penalty, seed, speculation, affinity): (f32, i64, i32, i32),
) -> Result<Options, Problem> {
    let mut options: Options = given::blank();
    options.threads = count("options.threads", threads)?;
    options.max_new_tokens = count("options.max_new_tokens", max_new_tokens)?;
    options.temperature = temperature;
    options.top_k = count("options.top_k", top_k)?;
    options.top_p = top_p;
    options.repetition_penalty = repetition_penalty;
    options.seed = seed as u64;
    options.speculation = speculation;
    options.affinity = count("options.affinity", affinity)?;
    Ok(options)
}

/// # Safety
/// As of [`model_open`].
pub unsafe fn session_open<P: Program>(
    env: Env,
    model: i64,
    threads: i32,
    max_new_tokens: i32,
    temperature: f32,
    top_k: i32,
    top_p: f32,
    repetition_penalty: f32,
    seed: i64,
    speculation: i32,
    affinity: i32,
    session: Longs,
    error: Bytes,
) -> i32 {
    let sampler = (temperature, top_k, top_p);
    let open = || {
        let options = chosen((threads, max_new_tokens), sampler, (repetition_penalty, seed, speculation, affinity))?;
        let mut opened: *mut Session<P> = ptr::null_mut();
        // SAFETY: passed on.
        unsafe {
            session::open::<P>(handle(model), &options, &mut opened)?;
            env.give_handle(session, opened);
        }
        Ok(())
    };
    // SAFETY: passed on.
    unsafe { env.report(error, open) }
}

/// # Safety
/// As of [`model_open`].
pub unsafe fn session_configure<P: Program>(
    env: Env,
    session: i64,
    threads: i32,
    max_new_tokens: i32,
    temperature: f32,
    top_k: i32,
    top_p: f32,
    repetition_penalty: f32,
    seed: i64,
    speculation: i32,
    affinity: i32,
    error: Bytes,
) -> i32 {
    let sampler = (temperature, top_k, top_p);
    let configure = || {
        let options = chosen((threads, max_new_tokens), sampler, (repetition_penalty, seed, speculation, affinity))?;
        // SAFETY: passed on.
        unsafe { session::configure::<P>(handle(session), &options) }
    };
    // SAFETY: passed on.
    unsafe { env.report(error, configure) }
}

/// # Safety
/// As of [`model_open`]; nobody changes the buffer meanwhile.
pub unsafe fn session_encode<P: Program>(
    env: Env,
    session: i64,
    pixels: Object,
    width: i32,
    height: i32,
    stride: i32,
    format: i32,
    side: i32,
    image: Longs,
    error: Bytes,
) -> i32 {
    let encode = || {
        if pixels.0.is_null() {
            return Err(Problem::argument("pixels", "is null"));
        }
        let mut given: Pixels = given::blank();
        // SAFETY: a buffer; one that is not direct has the address null and the capacity -1.
        let capacity = unsafe {
            given.data = env.get_direct_buffer_address(pixels);
            env.get_direct_buffer_capacity(pixels)
        };
        given.width = count("pixels.width", width)?;
        given.height = count("pixels.height", height)?;
        given.stride = count("pixels.stride", stride)? as usize;
        given.format = count("pixels.format", format)?;
        given.side = count("pixels.side", side)?;
        // What has no extent is refused below, and says why.
        if given.extent().is_some_and(|extent| i64::try_from(extent).map_or(true, |extent| extent > capacity)) {
            return Err(Problem::argument("pixels", "is no direct buffer, or has less than the rows of the picture"));
        }
        let mut encoded: *mut Image = ptr::null_mut();
        // SAFETY: the rows are inside the buffer, which the caller refers to until this returns.
        unsafe {
            session::encode::<P>(handle(session), &given, &mut encoded)?;
            env.give_handle(image, encoded);
        }
        Ok(())
    };
    // SAFETY: passed on.
    unsafe { env.report(error, encode) }
}

/// Who gets the pieces of an answer: `int piece(byte[] text)` of an object.
struct Listener {
    env: Env,
    object: Object,
    method: Method,
}

impl Listener {
    /// # Safety
    /// A live object.
    unsafe fn of(env: Env, object: Object) -> Result<Self, Problem> {
        // SAFETY: an object has a class; a method that it lacks is null and an exception.
        let method = unsafe { env.get_method_id(env.get_object_class(object), c"piece".as_ptr(), c"([B)I".as_ptr()) };
        if method.0.is_null() {
            return Err(Problem::argument("listener", "has no method piece"));
        }
        Ok(Self { env, object, method })
    }
}

/// The numbers of `tvlm_result` in their order, times as the bits of a double.
fn numbers(outcome: &Outcome) -> [i64; 7] {
    [
        outcome.stop.into(),
        outcome.tokens.into(),
        outcome.prefill_rows.into(),
        outcome.position.into(),
        outcome.prefill_ms.to_bits() as i64,
        outcome.decode_ms.to_bits() as i64,
        outcome.rested_ms.to_bits() as i64,
    ]
}

/// [`session::OnText`] of a [`Listener`].
///
/// # Safety
/// `context` is one, on the thread of its `env`; `bytes` of `text` are there.
unsafe extern "C" fn on_text(context: *mut c_void, text: *const c_char, bytes: usize) -> i32 {
    // SAFETY: as promised.
    let Listener { env, object, method } = unsafe { &*context.cast::<Listener>() };
    // SAFETY: no exception is pending, as an answer ends with the first one; the method takes an array of bytes. Pieces are
    // a few characters. A reference that would otherwise live until the answer ends is dropped, which is always allowed.
    unsafe {
        let array = env.new_byte_array(bytes as i32);
        if array.0.is_null() {
            return 1;
        }
        env.set_byte_array_region(array, 0, bytes as i32, text.cast());
        let stop = env.call_int_method_a(*object, *method, &Value { object: array });
        env.delete_local_ref(array);
        if env.has_thrown() { 1 } else { stop }
    }
}

/// Fills `result` with the numbers of `tvlm_result` in their order, times as the bits of a double. `listener` has a method
/// `int piece(byte[] text)`, which returns 0 to go on; what it throws ends the answer and reaches the caller.
///
/// # Safety
/// As of [`model_open`].
pub unsafe fn session_ask<P: Program>(
    env: Env,
    session: i64,
    images: Longs,
    question: Bytes,
    listener: Object,
    result: Longs,
    error: Bytes,
) -> i32 {
    let ask = || {
        // SAFETY: passed on.
        let question = unsafe { env.text("question", question)? };
        if images.0.is_null() || listener.0.is_null() {
            return Err(Problem::argument("images", "is null, or the listener is"));
        }
        // SAFETY: an array, of which as many elements are taken as it has.
        let pointers = unsafe {
            let length = env.get_array_length(images);
            let mut pointers = vec![0; length as usize];
            env.get_long_array_region(images, 0, length, pointers.as_mut_ptr());
            pointers
        };
        let images: Vec<*const Image> =
            pointers.into_iter().map(|number| handle::<Image>(number).cast_const()).collect();
        // SAFETY: passed on; not null.
        let mut listener = unsafe { Listener::of(env, listener)? };
        let mut outcome: Outcome = given::blank();
        // SAFETY: passed on; the listener is used until this returns.
        unsafe {
            session::ask::<P>(
                handle(session),
                images.as_ptr(),
                images.len(),
                question.as_ptr().cast(),
                Some(on_text),
                (&raw mut listener).cast(),
                &mut outcome,
            )?;
        }
        // SAFETY: passed on.
        unsafe { env.give_longs(result, &numbers(&outcome)) };
        Ok(())
    };
    // SAFETY: passed on.
    unsafe { env.report(error, ask) }
}

/// As [`session_ask`], for [`session::go_on`].
///
/// # Safety
/// As of [`model_open`].
pub unsafe fn session_continue<P: Program>(
    env: Env,
    session: i64,
    listener: Object,
    result: Longs,
    error: Bytes,
) -> i32 {
    let go_on = || {
        if listener.0.is_null() {
            return Err(Problem::argument("listener", "is null"));
        }
        let mut outcome: Outcome = given::blank();
        // SAFETY: passed on; the listener, which is not null, is used until this returns.
        unsafe {
            let mut listener = Listener::of(env, listener)?;
            session::go_on::<P>(handle(session), Some(on_text), (&raw mut listener).cast(), &mut outcome)?;
            env.give_longs(result, &numbers(&outcome));
        }
        Ok(())
    };
    // SAFETY: passed on.
    unsafe { env.report(error, go_on) }
}

/// # Safety
/// As of [`model_open`].
pub unsafe fn session_pause<P: Program>(env: Env, session: i64, error: Bytes) -> i32 {
    // SAFETY: passed on.
    unsafe { env.report(error, || session::pause::<P>(handle(session))) }
}

/// # Safety
/// As of [`model_open`].
pub unsafe fn session_resume<P: Program>(env: Env, session: i64, error: Bytes) -> i32 {
    // SAFETY: passed on.
    unsafe { env.report(error, || session::resume::<P>(handle(session))) }
}

/// # Safety
/// As of [`model_open`].
pub unsafe fn session_pressure<P: Program>(env: Env, session: i64, pressure: i32, error: Bytes) -> i32 {
    // SAFETY: passed on.
    unsafe { env.report(error, || session::pressure::<P>(handle(session), count("pressure", pressure)?)) }
}

/// # Safety
/// As of [`model_open`].
pub unsafe fn session_save<P: Program>(env: Env, session: i64, path: Bytes, error: Bytes) -> i32 {
    // SAFETY: passed on; the text ends with a zero.
    unsafe { env.report(error, || session::save::<P>(handle(session), env.text("path", path)?.as_ptr().cast())) }
}

/// # Safety
/// As of [`model_open`].
pub unsafe fn session_restore<P: Program>(env: Env, session: i64, path: Bytes, error: Bytes) -> i32 {
    // SAFETY: passed on; the text ends with a zero.
    unsafe { env.report(error, || session::restore::<P>(handle(session), env.text("path", path)?.as_ptr().cast())) }
}

/// Fills `bytes` with what [`session::trim`] gave back.
///
/// # Safety
/// As of [`model_open`].
pub unsafe fn session_trim<P: Program>(env: Env, session: i64, bytes: Longs, error: Bytes) -> i32 {
    let trim = || {
        let mut given = 0;
        // SAFETY: passed on.
        unsafe {
            session::trim::<P>(handle(session), &mut given)?;
            env.give_longs(bytes, &[given as i64]);
        }
        Ok(())
    };
    // SAFETY: passed on.
    unsafe { env.report(error, trim) }
}

/// Fills `info` with the numbers of `tvlm_session_info` in their order.
///
/// # Safety
/// As of [`model_open`].
pub unsafe fn session_info<P: Program>(env: Env, session: i64, info: Longs, error: Bytes) -> i32 {
    let tell = || {
        let mut told: session::Info = given::blank();
        // SAFETY: passed on.
        unsafe {
            session::info::<P>(handle(session), &mut told)?;
            let numbers =
                [told.threads, told.active_threads, told.image_side, told.position, told.bound, told.processors];
            env.give_longs(info, &numbers.map(i64::from));
        }
        Ok(())
    };
    // SAFETY: passed on.
    unsafe { env.report(error, tell) }
}

/// # Safety
/// As of [`model_open`].
pub unsafe fn session_cancel<P: Program>(env: Env, session: i64, error: Bytes) -> i32 {
    // SAFETY: passed on.
    unsafe { env.report(error, || session::cancel::<P>(handle(session))) }
}

/// # Safety
/// As of [`model_open`].
pub unsafe fn session_reset<P: Program>(env: Env, session: i64, error: Bytes) -> i32 {
    // SAFETY: passed on.
    unsafe { env.report(error, || session::reset::<P>(handle(session))) }
}

/// # Safety
/// As of [`model_open`]; the number is not used again if the result is 0.
pub unsafe fn session_close<P: Program>(env: Env, session: i64, error: Bytes) -> i32 {
    // SAFETY: passed on.
    unsafe { env.report(error, || session::close::<P>(handle(session))) }
}

/// # Safety
/// As of [`model_open`]; the number is not used again.
pub unsafe fn image_close<P: Program>(env: Env, image: i64, error: Bytes) -> i32 {
    // SAFETY: passed on.
    unsafe { env.report(error, || picture::close(handle(image))) }
}

/// Defines the functions of the Java class `dev.tvlmc.Native` for a program.
///
/// # Safety
/// Java calls them with what that class declares; its handles are those that they made and were not released.
#[macro_export]
macro_rules! export_jni {
    ($program:ty) => {
        $crate::export_jni! { $program;
            Java_dev_tvlmc_Native_modelOpen model_open(path: $crate::jni::Bytes, threads: i32, verify: i32, residence: i32, level: $crate::jni::Bytes, model: $crate::jni::Longs);
            Java_dev_tvlmc_Native_modelInfo model_info(model: i64, info: $crate::jni::Longs, level: $crate::jni::Bytes);
            Java_dev_tvlmc_Native_modelClose model_close(model: i64);
            Java_dev_tvlmc_Native_sessionOpen session_open(model: i64, threads: i32, max_new_tokens: i32, temperature: f32, top_k: i32, top_p: f32, repetition_penalty: f32, seed: i64, speculation: i32, affinity: i32, session: $crate::jni::Longs);
            Java_dev_tvlmc_Native_sessionConfigure session_configure(session: i64, threads: i32, max_new_tokens: i32, temperature: f32, top_k: i32, top_p: f32, repetition_penalty: f32, seed: i64, speculation: i32, affinity: i32);
            Java_dev_tvlmc_Native_sessionEncode session_encode(session: i64, pixels: $crate::jni::Object, width: i32, height: i32, stride: i32, format: i32, side: i32, image: $crate::jni::Longs);
            Java_dev_tvlmc_Native_sessionAsk session_ask(session: i64, images: $crate::jni::Longs, question: $crate::jni::Bytes, listener: $crate::jni::Object, result: $crate::jni::Longs);
            Java_dev_tvlmc_Native_sessionCancel session_cancel(session: i64);
            Java_dev_tvlmc_Native_modelTrim model_trim(model: i64, bytes: $crate::jni::Longs);
            Java_dev_tvlmc_Native_sessionContinue session_continue(session: i64, listener: $crate::jni::Object, result: $crate::jni::Longs);
            Java_dev_tvlmc_Native_sessionPause session_pause(session: i64);
            Java_dev_tvlmc_Native_sessionResume session_resume(session: i64);
            Java_dev_tvlmc_Native_sessionPressure session_pressure(session: i64, pressure: i32);
            Java_dev_tvlmc_Native_sessionSave session_save(session: i64, path: $crate::jni::Bytes);
            Java_dev_tvlmc_Native_sessionRestore session_restore(session: i64, path: $crate::jni::Bytes);
            Java_dev_tvlmc_Native_sessionTrim session_trim(session: i64, bytes: $crate::jni::Longs);
            Java_dev_tvlmc_Native_sessionInfo session_info(session: i64, info: $crate::jni::Longs);
            Java_dev_tvlmc_Native_sessionReset session_reset(session: i64);
            Java_dev_tvlmc_Native_sessionClose session_close(session: i64);
            Java_dev_tvlmc_Native_imageClose image_close(image: i64);
        }
    };
    ($program:ty; $($name:ident $function:ident($($argument:ident: $ty:ty),*);)*) => {
        $(
            #[doc = concat!("`", stringify!($function), "` for Java.")]
            ///
            /// # Safety
            /// Called by Java, as `dev.tvlmc.Native` declares it.
            #[unsafe(no_mangle)]
            #[allow(non_snake_case, clippy::too_many_arguments, reason = "Java's names and arguments")]
            pub unsafe extern "C" fn $name(env: $crate::jni::Env, _class: $crate::jni::Object, $($argument: $ty,)* error: $crate::jni::Bytes) -> i32 {
                // SAFETY: the caller keeps what `Native` asks for.
                unsafe { $crate::jni::$function::<$program>(env, $($argument,)* error) }
            }
        )*
    };
}
