//! Work that is done now, or by somebody else between two polls.
//!
//! What a session does is written once, as `async` functions. They wait for nothing but [`finished`] programs. Emitted code
//! does its work when it is called, so that their futures are ready at the first poll: no memory is taken for them, no
//! executor is needed, and the ordinary functions of a session are that one poll.

use crate::error::Error;
use crate::program::Program;
use crate::room::text;
use core::future::poll_fn;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

/// Polls once.
///
/// # Errors
/// [`Error::Program`] where the program hands its work out.
pub(crate) fn at_once<T>(work: impl Future<Output = T>) -> Result<T, Error> {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Ok(done),
        Poll::Pending => {
            Err(Error::Program { reason: text!("it hands its work out, which only async functions wait for") })
        }
    }
}

/// Waits until `program` has done what it was told.
pub(crate) async fn finished<P: Program>(program: &P) {
    if P::HANDS_OUT {
        poll_fn(|_| program.finished()).await;
    }
}
