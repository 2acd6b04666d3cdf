//! The C interface of an emitted library, `include/tvlm.h`, for any [`Program`](runtime_min::Program).
//!
//! Every function checks what it is given, fills a `tvlm_error` if something is wrong with it, and never unwinds into its
//! caller. [`export!`] makes the functions of one program; the rest of this crate is what they do. The header is written by
//! hand, and a test compares its sizes and numbers with those here. [`export_jni!`] makes them once more for Java.

#![deny(unsafe_op_in_unsafe_fn)]
#![warn(missing_docs)]

pub mod delegate;
pub mod jni;
pub mod model;
pub mod picture;
pub mod session;
pub mod status;

mod given;

/// `tvlm_version`: that of this package, which is that of the compiler and of the header.
pub const VERSION: &core::ffi::CStr =
    match core::ffi::CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => panic!("a version without zeros"),
    };

/// Defines the functions of `tvlm.h` for a program.
///
/// # Safety
/// What the header asks of callers of each function: handles are those that it made and were not released, pointers are null
/// where that is allowed, or point to what they say.
#[macro_export]
macro_rules! export {
    ($program:ty) => {
        $crate::export! { $program;
            model tvlm_model_open open(path: *const ::core::ffi::c_char, options: *const $crate::model::OpenOptions, model: *mut *mut $crate::model::Model<$program>);
            model tvlm_model_info_get info(model: *const $crate::model::Model<$program>, info: *mut $crate::model::Info);
            model tvlm_model_close close(model: *mut $crate::model::Model<$program>);
            session tvlm_session_open open(model: *const $crate::model::Model<$program>, options: *const $crate::session::Options, session: *mut *mut $crate::session::Session<$program>);
            session tvlm_session_configure configure(session: *const $crate::session::Session<$program>, options: *const $crate::session::Options);
            session tvlm_session_encode encode(session: *const $crate::session::Session<$program>, pixels: *const $crate::picture::Pixels, image: *mut *mut $crate::picture::Image);
            session tvlm_session_ask ask(session: *const $crate::session::Session<$program>, images: *const *const $crate::picture::Image, count: usize, question: *const ::core::ffi::c_char, on_text: ::core::option::Option<$crate::session::OnText>, context: *mut ::core::ffi::c_void, result: *mut $crate::session::Outcome);
            session tvlm_session_cancel cancel(session: *const $crate::session::Session<$program>);
            session tvlm_session_reset reset(session: *const $crate::session::Session<$program>);
            session tvlm_session_close close(session: *mut $crate::session::Session<$program>);
            session tvlm_session_pause pause(session: *const $crate::session::Session<$program>);
            session tvlm_session_resume resume(session: *const $crate::session::Session<$program>);
            session tvlm_session_pressure pressure(session: *const $crate::session::Session<$program>, pressure: u32);
            session tvlm_session_continue go_on(session: *const $crate::session::Session<$program>, on_text: ::core::option::Option<$crate::session::OnText>, context: *mut ::core::ffi::c_void, result: *mut $crate::session::Outcome);
            session tvlm_session_save save(session: *const $crate::session::Session<$program>, path: *const ::core::ffi::c_char);
            session tvlm_session_restore restore(session: *const $crate::session::Session<$program>, path: *const ::core::ffi::c_char);
            session tvlm_session_trim trim(session: *const $crate::session::Session<$program>, bytes: *mut u64);
            session tvlm_session_info_get info(session: *const $crate::session::Session<$program>, info: *mut $crate::session::Info);
            model tvlm_model_trim trim(model: *const $crate::model::Model<$program>, bytes: *mut u64);
            picture tvlm_image_close close(image: *mut $crate::picture::Image);
        }

        /// `tvlm_version` of `tvlm.h`.
        #[unsafe(no_mangle)]
        pub extern "C" fn tvlm_version() -> *const ::core::ffi::c_char {
            $crate::VERSION.as_ptr()
        }
    };
    ($program:ty; $($module:ident $name:ident $function:ident($($argument:ident: $ty:ty),*);)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "` of `tvlm.h`.")]
            ///
            /// # Safety
            /// As the header says.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($argument: $ty,)* error: *mut $crate::status::Failure) -> i32 {
                // SAFETY: the caller keeps what the header asks for.
                unsafe { $crate::status::report(error, || $crate::$module::$function($($argument),*)) }
            }
        )*
    };
}

#[cfg(test)]
mod tests {
    use runtime_min::Error;

    /// The header is one text for all, so its numbers are written by hand.
    #[test]
    fn the_header_is_of_this_version() {
        let header = include_str!("../include/tvlm.h");
        let number = |part: &str| {
            let name = format!("#define TVLM_VERSION_{part} ");
            header.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or_else(|| panic!("no {name}"))
        };
        let version = format!("{}.{}.{}", number("MAJOR"), number("MINOR"), number("PATCH"));
        assert_eq!(version, env!("CARGO_PKG_VERSION"));
        assert_eq!(super::VERSION.to_str(), Ok(version.as_str()));
        assert!(header.contains(&format!("/* \"{version}\": the library's version. */")));
    }

    /// Numbers once given stay, and new codes of the runtime have one.
    #[test]
    fn every_saved_fault_has_a_number() {
        let (path, reason) = (String::new(), String::new());
        let damaged = Error::SavedDamaged { path: path.clone(), reason: reason.clone() };
        let foreign = Error::SavedForeign { path, reason };
        let codes = crate::status::LATER.map(|(code, _)| code);
        assert_eq!(codes, [damaged.code(), foreign.code()]);
    }
}
