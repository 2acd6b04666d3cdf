//! How members run a phase together: shares of a step, barriers, and work that is handed out.
//!
//! Words of the control block, which begins as zeros:
//!
//! | word | what |
//! |---|---|
//! | 0 | not 0: cancel |
//! | 1 | members that have reached the barrier |
//! | 2 | barriers that were passed |
//! | 3 | whether all stop: decided by whoever passes the barrier last |
//! | 4 | runs that were begun; [`stop`] counts as one |
//! | 5..9 | phase, start, rows and members of the latest |
//! | 9 | not 0: `work` returns |
//!
//! A member that waits spins first: the steps of a token take microseconds, waking a thread takes tens of them.

use wasm_encoder::{BlockType, Function, Instruction as I, MemArg, MemArgTarget, ValType};

/// Looks at a word before its member sleeps.
const SPINS: i32 = 20_000;

const CANCEL: u64 = 0;
const ARRIVED: u64 = 1;
const PASSED: u64 = 2;
const STOP: u64 = 3;
const BEGUN: u64 = 4;
const PHASE: u64 = 5;
const ENDED: u64 = 9;

/// Functions and the global that these are made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts {
    /// Global with the address of the control block.
    pub control: u32,
    /// `count(phase) -> steps`.
    pub count: u32,
    /// `units(phase, index, rows) -> units`.
    pub units: u32,
    /// `step(phase, index, first, last, start, rows, member)`.
    pub step: u32,
    /// `run`, where [`run`] puts it.
    pub run: u32,
    /// `barrier(count) -> stop`, of shared memory.
    pub barrier: u32,
    /// `wait(address, old)`, of shared memory.
    pub wait: u32,
}

/// A word of the control block.
fn word(at: u64) -> MemArg {
    MemArg { offset: 4 * at, align: 2, target: MemArgTarget::Memory(0), ordering: None }
}

fn function(locals: u32, code: &[I<'static>]) -> Function {
    let mut function = Function::new([(locals, ValType::I32)]);
    code.iter().for_each(|i| {
        function.instruction(i);
    });
    function.instruction(&I::End);
    function
}

/// `run(phase, start, rows, member, count) -> cancelled`: each step's share of `member`, contiguous, larger ones first.
/// Without shared memory nobody is waited for.
pub(super) fn run(p: &Parts, shared: bool) -> Function {
    const PHASE: u32 = 0;
    const START: u32 = 1;
    const ROWS: u32 = 2;
    const MEMBER: u32 = 3;
    const COUNT: u32 = 4;
    const INDEX: u32 = 5;
    const STEPS: u32 = 6;
    const UNITS: u32 = 7;
    const EACH: u32 = 8;
    const REST: u32 = 9;
    const FIRST: u32 = 10;
    let get = I::LocalGet;
    let mut code = vec![get(PHASE), I::Call(p.count), I::LocalSet(STEPS)];
    code.extend([I::Block(BlockType::Empty), get(STEPS), I::I32Eqz, I::BrIf(0), I::Loop(BlockType::Empty)]);
    if !shared {
        code.extend([I::GlobalGet(p.control), I::I32Load(word(CANCEL)), I::If(BlockType::Empty)]);
        code.extend([I::I32Const(1), I::Return, I::End]);
    }
    code.extend([get(PHASE), get(INDEX), get(ROWS), I::Call(p.units), I::LocalTee(UNITS)]);
    code.extend([get(COUNT), I::I32DivU, I::LocalSet(EACH)]);
    code.extend([get(UNITS), get(COUNT), I::I32RemU, I::LocalSet(REST)]);
    // first = each * member + min(member, rest)
    code.extend([get(EACH), get(MEMBER), I::I32Mul]);
    code.extend([get(MEMBER), get(REST), get(MEMBER), get(REST), I::I32LtU, I::Select]);
    code.extend([I::I32Add, I::LocalSet(FIRST)]);
    code.extend([get(PHASE), get(INDEX), get(FIRST)]);
    code.extend([get(FIRST), get(EACH), I::I32Add, get(MEMBER), get(REST), I::I32LtU, I::I32Add]);
    code.extend([get(START), get(ROWS), get(MEMBER), I::Call(p.step)]);
    if shared {
        code.extend([get(COUNT), I::Call(p.barrier), I::If(BlockType::Empty), I::I32Const(1), I::Return, I::End]);
    }
    code.extend([get(INDEX), I::I32Const(1), I::I32Add, I::LocalTee(INDEX), get(STEPS), I::I32LtU, I::BrIf(0)]);
    code.extend([I::End, I::End, I::I32Const(0)]);
    function(6, &code)
}

/// `wait(address, old)`: until the word there is another one.
pub(super) fn wait() -> Function {
    let (get, none) = (I::LocalGet, word(0));
    let is_old = [get(0), I::I32AtomicLoad(none), get(1), I::I32Eq];
    let mut code = vec![I::Block(BlockType::Empty), I::Loop(BlockType::Empty)];
    code.extend(is_old.clone());
    code.extend([I::I32Eqz, I::BrIf(1)]);
    code.extend([get(2), I::I32Const(1), I::I32Add, I::LocalTee(2), I::I32Const(SPINS), I::I32LtU, I::BrIf(0)]);
    // Woken without a reason it looks again.
    code.extend([get(0), get(1), I::I64Const(-1), I::MemoryAtomicWait32(none), I::Drop, I::Br(0)]);
    code.extend([I::End, I::End]);
    function(1, &code)
}

/// `barrier(count) -> stop`: returns when `count` members are here.
pub(super) fn barrier(p: &Parts) -> Function {
    let (get, control) = (I::LocalGet, I::GlobalGet(p.control));
    let mut code = vec![control.clone(), I::I32AtomicLoad(word(PASSED)), I::LocalSet(1)];
    code.extend([control.clone(), I::I32Const(1), I::I32AtomicRmwAdd(word(ARRIVED))]);
    code.extend([I::I32Const(1), I::I32Add, get(0), I::I32Eq, I::If(BlockType::Empty)]);
    // The last one decides for all, opens the barrier and wakes who sleeps.
    code.extend([control.clone(), I::I32Const(0), I::I32AtomicStore(word(ARRIVED))]);
    code.extend([control.clone(), control.clone(), I::I32AtomicLoad(word(CANCEL)), I::I32AtomicStore(word(STOP))]);
    code.extend([control.clone(), get(1), I::I32Const(1), I::I32Add, I::I32AtomicStore(word(PASSED))]);
    code.extend([control.clone(), I::I32Const(-1), I::MemoryAtomicNotify(word(PASSED)), I::Drop, I::Else]);
    code.extend([control.clone(), I::I32Const(4 * PASSED as i32), I::I32Add, get(1), I::Call(p.wait), I::End]);
    code.extend([control, I::I32AtomicLoad(word(STOP))]);
    function(1, &code)
}

/// `work(member, count)`: takes part in every run that is begun from the beginning on, until [`stop`].
pub(super) fn work(p: &Parts) -> Function {
    let (get, control) = (I::LocalGet, I::GlobalGet(p.control));
    let told = |at: u64| [control.clone(), I::I32AtomicLoad(word(PHASE + at))];
    let mut code = vec![I::Block(BlockType::Empty), I::Loop(BlockType::Empty)];
    code.extend([control.clone(), I::I32Const(4 * BEGUN as i32), I::I32Add, get(2), I::Call(p.wait)]);
    code.extend([control.clone(), I::I32AtomicLoad(word(ENDED)), I::BrIf(1)]);
    code.extend([get(2), I::I32Const(1), I::I32Add, I::LocalSet(2)]);
    // A run of fewer members goes on without this one.
    code.extend([get(0)].into_iter().chain(told(3)).chain([I::I32GeU, I::BrIf(0)]));
    code.extend(told(0).into_iter().chain(told(1)).chain(told(2)));
    code.extend([get(0)].into_iter().chain(told(3)).chain([I::Call(p.run), I::Drop, I::Br(0)]));
    code.extend([I::End, I::End]);
    function(1, &code)
}

/// `begin(phase, start, rows, count)`: lets the other members of a run begin.
pub(super) fn begin(p: &Parts) -> Function {
    let control = I::GlobalGet(p.control);
    let mut code = Vec::new();
    for i in 0..4 {
        code.extend([control.clone(), I::LocalGet(i), I::I32AtomicStore(word(PHASE + u64::from(i)))]);
    }
    code.extend(wake(&control));
    function(0, &code)
}

/// `stop()`: `work` of the others returns.
pub(super) fn stop(p: &Parts) -> Function {
    let control = I::GlobalGet(p.control);
    let mut code = vec![control.clone(), I::I32Const(1), I::I32AtomicStore(word(ENDED))];
    code.extend(wake(&control));
    function(0, &code)
}

/// Counts a run and wakes those who wait for one.
fn wake(control: &I<'static>) -> [I<'static>; 8] {
    let c = || control.clone();
    [
        c(),
        I::I32Const(1),
        I::I32AtomicRmwAdd(word(BEGUN)),
        I::Drop,
        c(),
        I::I32Const(-1),
        I::MemoryAtomicNotify(word(BEGUN)),
        I::Drop,
    ]
}
