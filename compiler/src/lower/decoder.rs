//! The decoder, in three ways: for many positions (matrix products), for one (matrix-vector products), and for a few
//! whose weights are read once.

use std::rc::Rc;

use ir::{Axis, Graph, Node, Op, RegionKind, Shape, WeightId};
use kernels::library::attention::{self, Attention};
use kernels::library::cache::GROUP;
use kernels::library::columns::{self, Columns};
use kernels::library::gemm::Init;
use kernels::library::linear::{self, Linear, Norm, Rows, UNIT};
use kernels::library::matrix::Format;
use kernels::library::quantize::QuantRows;
use kernels::library::split::{self, Split};
use kernels::library::two_layer::{self, TwoLayer};
use kernels::library::{Schedule, head, pitch, rope};
use kernels::{Elem, Kernel, LANES};
use models::Description;

use super::context::{Context, Draft, Packed, SlotId, Value, line_units};
use super::pattern::{body, mismatch, whole_lines};
use super::vision::LINEAR_STRIP;
use super::{LowerError, Phase, Place, Tap, Units};
use crate::pack::PackId;

/// The decoder's part of a program.
pub(super) struct Lowered {
    pub prefill: Phase,
    pub decode: Phase,
    pub verify: Phase,
    pub verify_rows: usize,
    pub all_logits: Phase,
    pub embed: Vec<Rc<Kernel>>,
    pub embed_table: PackId,
    pub embed_pointers: Vec<Place>,
    pub cache: Vec<(SlotId, [usize; 4])>,
    pub rows: SlotId,
    pub logits: SlotId,
    pub token: SlotId,
}

/// Rows of a verification: a token and what is drafted to follow it. The 4-bit products of four rows still wait for
/// the weights, as those of one do.
const FEW: usize = 4;

/// A way through the decoder, which is a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Prefill: up to a chunk of rows, the head for the last one.
    Many,
    /// Decode: one row.
    One,
    /// Verify: up to [`FEW`] rows, the head for each.
    Few,
}

/// The phases under construction.
pub(super) struct Decoder<'c, 'a> {
    pub cx: &'c mut Context<'a>,
    /// Those there are.
    pub ways: &'static [Way],
    phases: [Phase; 3],
    /// What completes the logits.
    pub all_logits: Phase,
    /// The residual stream of each way.
    pub x: [Value; 3],
    /// In each way the largest logits of lines and their indices, where not all logits are made.
    pub winners: [Option<[SlotId; 2]>; 3],
    context: usize,
    chunk: usize,
    tables: Option<(PackId, PackId)>,
    cache: Vec<(SlotId, [usize; 4])>,
}

/// Lowers the decoder graph.
pub(super) fn lower(
    cx: &mut Context<'_>,
    description: &Description,
    graph: &Graph,
    table: WeightId,
    context: usize,
    chunk: usize,
) -> Result<Lowered, LowerError> {
    let (hidden, vocab) = (description.text.hidden, description.text.vocab);
    let rows = cx.slot("rows", chunk * pitch(hidden), true);
    // Rows of floats have other bits among others than alone.
    let few = cx.formats.decoder != Format::F32 && chunk >= FEW;
    let (ways, verify_rows): (&[Way], usize) =
        if few { (&[Way::Many, Way::One, Way::Few], FEW) } else { (&[Way::Many, Way::One], 1) };
    let logits = cx.slot("logits", verify_rows * pitch(vocab), true);
    let token = cx.slot("token", verify_rows, true);
    let x = Value { slot: rows, rows: 0, channels: hidden, elem: Elem::F32 };
    let mut d = Decoder {
        cx,
        ways,
        phases: Default::default(),
        all_logits: Phase::default(),
        x: [x, Value { rows: 1, ..x }, x],
        winners: [None; 3],
        context,
        chunk,
        tables: None,
        cache: Vec::new(),
    };
    for (_, node) in graph.nodes() {
        match &node.op {
            Op::Input => {}
            Op::Region { kind: RegionKind::DecoderAttention, body } => d.attention(node, body)?,
            Op::Region { kind: RegionKind::Mlp, body } => d.mlp(node, body)?,
            Op::Region { kind: RegionKind::Head, body } => d.head(node, body, logits)?,
            Op::ArgMax => d.argmax(node, vocab, logits, token)?,
            other => {
                let reason = format!("no kernel for {} outside a region", other.name());
                return Err(LowerError::unsupported(&node.name, reason));
            }
        }
    }
    let ([prefill, decode, verify], all_logits, cache) = (d.phases, d.all_logits, d.cache);
    let format = cx.formats.head;
    let embed_table = cx.packs.matrix("embedding", table, (vocab, hidden), None, format);
    let mut embed_pointers = vec![Place::Weight(embed_table)];
    if format != Format::F32 {
        embed_pointers.push(Place::Scales(embed_table));
    }
    let split = cx.formats.split.then_some(Split { inputs: hidden, vocab, rows: verify_rows });
    if split.is_some() {
        let low = cx.packs.low("embedding.low", table, (vocab, hidden));
        embed_pointers.extend([Place::Weight(low), Place::Scales(low)]);
    }
    let kernel = || split.map_or_else(|| head::embed(format, hidden, vocab), |h| split::embed(&h));
    let embed = cx.schedules.iter().map(|_| kernel()).collect();
    Ok(Lowered {
        prefill,
        decode,
        verify,
        verify_rows,
        all_logits,
        embed,
        embed_table,
        embed_pointers,
        cache,
        rows,
        logits,
        token,
    })
}

/// A linear layer of a region.
fn linear_of(cx: &mut Context<'_>, node: &Node, format: Format) -> Result<Packed, LowerError> {
    let Op::Linear { weight, bias } = &node.op else {
        return Err(LowerError::unsupported(&node.name, format!("expected Linear, found {}", node.op.name())));
    };
    let (outputs, inputs) = (cx.weights.shape(*weight)[0], cx.weights.shape(*weight)[1]);
    let pack = cx.packs.matrix(&format!("{}.weight", node.name), *weight, (outputs, inputs), None, format);
    let bias = bias.map(|b| Place::Weight(cx.packs.vector(&format!("{}.bias", node.name), b, outputs)));
    Ok(Packed { format, pack, bias, outputs, inputs })
}

fn rms(node: &Node) -> Result<(Norm, Option<WeightId>), LowerError> {
    match &node.op {
        Op::RmsNorm { gain, eps } => Ok((Norm::Rms { eps: *eps as f32, gain: gain.is_some() }, *gain)),
        other => Err(LowerError::unsupported(&node.name, format!("expected RmsNorm, found {}", other.name()))),
    }
}

impl Way {
    /// The number of rows in shapes.
    pub(super) fn rows(self) -> &'static str {
        match self {
            Way::One => "1",
            Way::Many | Way::Few => "rows",
        }
    }
}

impl Decoder<'_, '_> {
    pub(super) fn step(
        &mut self,
        way: Way,
        draft: Draft<'_>,
        build: impl Fn(&Schedule) -> Rc<Kernel>,
        scratch: usize,
    ) -> Result<(), LowerError> {
        let rows = self.most(way);
        let most = vec![("rows", rows as i64), ("start", (self.context - rows) as i64), ("row", rows as i64 - 1)];
        let step = self.cx.step(Draft { most, ..draft }, build, |_| scratch)?;
        self.phases[way as usize].steps.push(step);
        Ok(())
    }

    /// Most rows of a call.
    pub(super) fn most(&self, way: Way) -> usize {
        match way {
            Way::Many => self.chunk,
            Way::One => 1,
            Way::Few => FEW,
        }
    }

    /// A new value in each phase.
    fn values(&mut self, name: &str, channels: usize) -> [Value; 3] {
        let many = self.cx.value(name, self.chunk, channels);
        let one = self.cx.value(name, 1, channels);
        let few = if self.ways.contains(&Way::Few) { self.cx.value(name, FEW, channels) } else { one };
        [Value { rows: 0, ..many }, one, Value { rows: 0, ..few }]
    }

    /// A linear layer from `x` to `y` in all phases.
    fn linear(
        &mut self,
        name: &str,
        norm: Option<Norm>,
        w: &Packed,
        x: [Value; 3],
        residual: Option<[Value; 3]>,
        y: [Value; 3],
    ) -> Result<(), LowerError> {
        let Packed { format, inputs, outputs, bias, .. } = *w;
        let init = match (bias.is_some(), residual.is_some()) {
            (true, true) => Init::BiasResidual,
            (true, false) => Init::Bias,
            (false, true) => Init::Residual,
            (false, false) => Init::Zero,
        };
        let many = Rows::UpTo(self.chunk);
        let l = Linear { norm, init, strip: LINEAR_STRIP, ..Linear::new(inputs, outputs, format, many) };
        for &way in self.ways {
            let i = way as usize;
            let mut bind = w.bind("w", "w_scale");
            bind.extend([("x", x[i].place()), ("y", y[i].place()), ("scratch", Place::Scratch)]);
            bind.extend(bias.map(|b| ("bias", b)));
            bind.extend(residual.map(|r| ("residual", r[i].place())));
            let mut draft = Draft {
                name: name.to_string(),
                shapes: format!("[{}, {inputs}] x [{inputs}, {outputs}]", way.rows()),
                units: if way == Way::Many { Units::Rows(UNIT) } else { line_units(outputs) },
                bind,
                result: y[i].tap(),
                macs: (inputs * outputs) as u64,
                most: vec![],
            };
            match (way, format.rows(inputs)) {
                (Way::One, _) => self.step(way, draft, |s| linear::vector(s, &l, false), l.scratch(1))?,
                (Way::Few, _) => self.step(way, draft, |s| linear::vectors(s, &l, FEW), l.scratch(FEW))?,
                (Way::Many, None) => self.step(way, draft, |s| linear::linear(s, &l), l.scratch(LINEAR_STRIP))?,
                (Way::Many, Some(q)) => {
                    draft.bind.push(("q", self.quantized(name, norm, x[0], &q)?));
                    let c = Columns { inputs, outputs, format, init, rows: many };
                    draft.units = Units::Fixed(c.units());
                    self.step(way, draft, |s| columns::columns(s, &c), c.scratch())?;
                }
            }
        }
        Ok(())
    }

    /// A step that normalizes and quantizes the rows `x` of a prefill; where they are then.
    fn quantized(&mut self, name: &str, norm: Option<Norm>, x: Value, q: &QuantRows) -> Result<Place, LowerError> {
        let slot = self.cx.slot(format!("{name}.rows"), self.chunk * q.pitch(), false);
        let draft = Draft {
            name: format!("{name}.quantize"),
            shapes: format!("[rows, {}] to bytes", q.channels),
            units: Units::Rows(UNIT),
            bind: vec![("x", x.place()), ("q", Place::Slot(slot, 0)), ("scratch", Place::Scratch)],
            // The bytes are not floats: what is looked at are the rows they came from.
            result: x.tap(),
            macs: 0,
            most: vec![],
        };
        let rows = Rows::UpTo(self.chunk);
        let scratch = if norm.is_some() { LINEAR_STRIP * pitch(q.channels) } else { 0 };
        self.step(Way::Many, draft, |_| columns::quantize_rows(norm, q, rows, LINEAR_STRIP), scratch)?;
        Ok(Place::Slot(slot, 0))
    }

    /// Cosines and sines of all positions, `[context, head_dim / 2]`.
    fn tables(&mut self, head_dim: usize, theta: f64) -> (PackId, PackId) {
        if let Some(tables) = self.tables {
            return tables;
        }
        let half = head_dim / 2;
        // The reference multiplies position and frequency in f32, then takes the cosine.
        let angle = |i: usize| {
            let frequency = (1.0 / theta.powf((2 * (i % half)) as f64 / head_dim as f64)) as f32;
            f64::from((i / half) as f32 * frequency)
        };
        let n = self.context * half;
        let cos = self.cx.packs.table("rope.cos", (0..n).map(|i| angle(i).cos() as f32).collect());
        let sin = self.cx.packs.table("rope.sin", (0..n).map(|i| angle(i).sin() as f32).collect());
        *self.tables.insert((cos, sin))
    }

    fn attention(&mut self, node: &Node, graph: &Graph) -> Result<(), LowerError> {
        let found = body(graph);
        let [norm, qkv, turn, att, out, add] = found[..] else {
            return Err(mismatch(node, "RmsNorm, Linear, Rope, Attention, Linear, Add", &found));
        };
        let (Op::Rope { heads: turned, head_dim: rotated, theta }, Op::Add) = (&turn.op, &add.op) else {
            return Err(mismatch(node, "RmsNorm, Linear, Rope, Attention, Linear, Add", &found));
        };
        let Op::Attention { heads, kv_heads, head_dim, scale, causal: true, cache: Some(_) } = &att.op else {
            return Err(mismatch(node, "causal attention with a cache", &found));
        };
        if !head_dim.is_multiple_of(2 * LANES) {
            return Err(LowerError::unsupported(
                &node.name,
                format!("the head dimension is {head_dim}, must be a multiple of {}", 2 * LANES),
            ));
        }
        if *turned != heads + kv_heads || rotated != head_dim || *scale != 1.0 {
            return Err(mismatch(node, "all queries and keys turned, the scale folded", &found));
        }
        let a = Attention {
            heads: *heads,
            kv_heads: *kv_heads,
            head_dim: *head_dim,
            capacity: self.context,
            causal: true,
            cache: self.cx.formats.cache,
        };
        let (norm, _) = rms(norm)?;
        let format = self.cx.formats.decoder;
        let (w1, w2) = (linear_of(self.cx, qkv, format)?, linear_of(self.cx, out, format)?);
        let wide = w1.outputs;
        let (cos, sin) = self.tables(a.head_dim, *theta);
        let keys = self.cx.slot(format!("{}.keys", node.name), a.cache_floats(), true);
        let values = self.cx.slot(format!("{}.values", node.name), a.cache_floats(), true);
        self.cache.extend([(keys, a.blocks()), (values, a.blocks())]);
        let merged = self.values(&qkv.name, wide);
        let mixed = self.values(&att.name, w2.inputs);
        let y = self.values(&node.name, w2.outputs);

        self.linear(&qkv.name, Some(norm), &w1, self.x, None, merged)?;
        for &way in self.ways {
            let (i, rows) = (way as usize, way.rows());
            let cache = [("keys", Place::Slot(keys, 0)), ("values", Place::Slot(values, 0))];
            let mut bind = vec![("qkv", merged[i].place()), ("cos", Place::Weight(cos)), ("sin", Place::Weight(sin))];
            bind.extend(cache);
            bind.push(("scratch", Place::Scratch));
            // A few rows take the kernels for many.
            let kind = if way == Way::One { Rows::Fixed(1) } else { Rows::UpTo(self.chunk) };
            let draft = Draft {
                name: turn.name.clone(),
                shapes: format!("[{rows}, {wide}] turned, keys and values to the cache"),
                units: if way == Way::One { Units::Fixed(1) } else { Units::Rows(GROUP) },
                bind,
                result: merged[i].tap(),
                macs: 0,
                most: vec![],
            };
            self.step(way, draft, |_| rope::rope(&a, kind), a.cache.scratch(a.head_dim))?;
            let mut bind = vec![("qkv", merged[i].place()), ("y", mixed[i].place()), ("scratch", Place::Scratch)];
            bind.extend(cache);
            let block = a.unit().min(kind.most());
            let draft = Draft {
                name: att.name.clone(),
                shapes: format!("{} heads of [{rows}, {}] over the cache of {}", a.heads, a.head_dim, a.kv_heads),
                units: match way {
                    Way::One => Units::Fixed(a.kv_heads),
                    Way::Many | Way::Few => Units::HeadRows { heads: a.kv_heads, block },
                },
                bind,
                result: mixed[i].tap(),
                macs: 0,
                most: vec![],
            };
            self.step(way, draft, |s| attention::attend(s, &a, kind, block), a.scratch(block))?;
        }
        self.linear(&node.name, None, &w2, mixed, Some(self.x), y)?;
        self.x = y;
        Ok(())
    }

    fn mlp(&mut self, node: &Node, graph: &Graph) -> Result<(), LowerError> {
        let found = body(graph);
        let [norm, up, act, down, add] = found[..] else {
            return Err(mismatch(node, "RmsNorm, Linear, SwiGlu, Linear, Add", &found));
        };
        let (Op::SwiGlu, Op::Add) = (&act.op, &add.op) else {
            return Err(mismatch(node, "RmsNorm, Linear, SwiGlu, Linear, Add", &found));
        };
        let (norm, _) = rms(norm)?;
        let format = self.cx.formats.decoder;
        let (w1, w2) = (linear_of(self.cx, up, format)?, linear_of(self.cx, down, format)?);
        if w1.bias.is_some() || w2.bias.is_some() {
            return Err(LowerError::unsupported(&node.name, "an MLP with biases"));
        }
        whole_lines(&node.name, "the hidden width", w2.inputs)?;
        let y = self.values(&node.name, w2.outputs);
        match format.rows(w2.inputs) {
            None => self.mlp_rows(node, norm, &w1, &w2, y[0])?,
            Some(hidden) => self.mlp_columns(node, &act.name, norm, (&w1, &w2), y[0], &hidden)?,
        }
        for &way in self.ways.iter().filter(|way| **way != Way::Many) {
            self.mlp_vectors(node, &act.name, norm, (&w1, &w2), (way, y[way as usize]))?;
        }
        self.x = y;
        Ok(())
    }

    /// Many rows in floats, strip by strip.
    fn mlp_rows(&mut self, node: &Node, norm: Norm, w1: &Packed, w2: &Packed, y: Value) -> Result<(), LowerError> {
        let (channels, hidden, wide) = (w2.outputs, w2.inputs, w1.outputs);
        let sizes = (channels, hidden);
        let two =
            |s: &Schedule| TwoLayer::new(sizes, two_layer::Activation::SwiGlu, w1.format, LINEAR_STRIP, s.strip_bytes);
        let most = self.cx.schedules.iter().map(|s| two(s).scratch(LINEAR_STRIP)).max().unwrap_or(0);
        let mut bind = vec![("x", self.x[0].place()), ("y", y.place()), ("scratch", Place::Scratch)];
        bind.extend(w1.bind("w1", "w1_scale"));
        bind.extend(w2.bind("w2", "w2_scale"));
        let draft = Draft {
            name: node.name.clone(),
            shapes: format!("[rows, {channels}] -> {wide} -> {hidden} -> {channels}"),
            units: Units::Rows(UNIT),
            bind,
            result: y.tap(),
            macs: (channels * wide + hidden * channels) as u64,
            most: vec![],
        };
        let scratch = LINEAR_STRIP * pitch(channels) + most;
        self.step(Way::Many, draft, |s| two_layer::mlp(s, norm, &two(s), LINEAR_STRIP), scratch)
    }

    /// Many quantized rows, by output channels.
    fn mlp_columns(
        &mut self,
        node: &Node,
        name: &str,
        norm: Norm,
        (w1, w2): (&Packed, &Packed),
        y: Value,
        hidden: &QuantRows,
    ) -> Result<(), LowerError> {
        let Some(rows) = w1.format.rows(w1.inputs) else { return Ok(()) };
        let q = self.quantized(name, Some(norm), self.x[0], &rows)?;
        let between = self.cx.slot(format!("{name}.rows"), self.chunk * hidden.pitch(), false);
        let many = Rows::UpTo(self.chunk);
        let up = Columns { inputs: w1.inputs, outputs: w2.inputs, format: w1.format, init: Init::Zero, rows: many };
        let mut bind = w1.bind("w", "w_scale");
        bind.extend([("q", q), ("h", Place::Slot(between, 0)), ("scratch", Place::Scratch)]);
        let draft = Draft {
            name: format!("{name}.bytes"),
            shapes: format!("[rows, {}] x [{}, {}], SwiGLU, to bytes", w1.inputs, w1.inputs, w1.outputs),
            units: Units::Fixed(up.blocks()),
            bind,
            result: self.x[0].tap(),
            macs: (w1.inputs * w1.outputs) as u64,
            most: vec![],
        };
        self.step(Way::Many, draft, |s| columns::gated(s, &up), up.gated_scratch())?;
        let down = Columns { inputs: w2.inputs, outputs: w2.outputs, init: Init::Residual, ..up };
        let mut bind = w2.bind("w", "w_scale");
        bind.extend([("q", Place::Slot(between, 0)), ("residual", self.x[0].place())]);
        bind.extend([("y", y.place()), ("scratch", Place::Scratch)]);
        let draft = Draft {
            name: node.name.clone(),
            shapes: format!("[rows, {}] x [{}, {}] + residual", w2.inputs, w2.inputs, w2.outputs),
            units: Units::Fixed(down.units()),
            bind,
            result: y.tap(),
            macs: (w2.inputs * w2.outputs) as u64,
            most: vec![],
        };
        self.step(Way::Many, draft, |s| columns::columns(s, &down), down.scratch())
    }

    /// One row or a few, by output channels.
    fn mlp_vectors(
        &mut self,
        node: &Node,
        name: &str,
        norm: Norm,
        (w1, w2): (&Packed, &Packed),
        (way, y): (Way, Value),
    ) -> Result<(), LowerError> {
        let (format, x, n) = (w1.format, self.x[way as usize], self.most(way));
        let (channels, wide, hidden) = (w1.inputs, w1.outputs, w2.inputs);
        let between = self.cx.value(name, n, hidden);
        let between = if way == Way::One { between } else { Value { rows: 0, ..between } };
        let mut bind = w1.bind("w", "w_scale");
        bind.extend([("x", x.place()), ("y", between.place()), ("scratch", Place::Scratch)]);
        let draft = Draft {
            name: name.to_string(),
            shapes: format!("[{}, {channels}] x [{channels}, {wide}], SwiGLU", way.rows()),
            units: line_units(hidden),
            bind,
            result: between.tap(),
            macs: (channels * wide) as u64,
            most: vec![],
        };
        let sizes = (channels, hidden);
        let scratch = linear::gated_vectors_scratch(format, sizes, n);
        self.step(way, draft, |s| linear::gated_vectors(s, norm, format, sizes, n), scratch)?;
        let l = Linear { init: Init::Residual, ..Linear::new(hidden, w2.outputs, w2.format, Rows::Fixed(n)) };
        let mut bind = w2.bind("w", "w_scale");
        bind.extend([("x", between.place()), ("residual", x.place())]);
        bind.extend([("y", y.place()), ("scratch", Place::Scratch)]);
        let draft = Draft {
            name: node.name.clone(),
            shapes: format!("[{}, {hidden}] x [{hidden}, {}] + residual", way.rows(), w2.outputs),
            units: line_units(w2.outputs),
            bind,
            result: y.tap(),
            macs: (hidden * w2.outputs) as u64,
            most: vec![],
        };
        self.step(way, draft, |s| linear::vectors(s, &l, n), l.scratch(n))
    }

    fn head(&mut self, node: &Node, graph: &Graph, logits: SlotId) -> Result<(), LowerError> {
        let found = body(graph);
        let [last, norm, linear_node] = found[..] else {
            return Err(mismatch(node, "LastRow, RmsNorm, Linear", &found));
        };
        if last.op != Op::LastRow || !matches!(last.shape, Shape::Rows { n: Axis::Fixed(1), .. }) {
            return Err(mismatch(node, "LastRow, RmsNorm, Linear", &found));
        }
        let (kind, gain) = rms(norm)?;
        let w = linear_of(self.cx, linear_node, self.cx.formats.head)?;
        let (vocab, hidden) = (w.outputs, w.inputs);
        if w.bias.is_some() {
            return Err(LowerError::unsupported(&node.name, "a head with a bias"));
        }
        let gain = gain.map(|g| Place::Weight(self.cx.packs.vector(&format!("{}.gain", norm.name), g, hidden)));
        if let (true, Op::Linear { weight, .. }) = (self.cx.formats.split, &linear_node.op) {
            let low = self.cx.packs.low(&format!("{}.low", linear_node.name), *weight, (vocab, hidden));
            return self.split_head(&node.name, (kind, gain), (&w, low), logits);
        }
        let one = Linear::new(hidden, vocab, w.format, Rows::Fixed(1));
        let l = Linear { norm: Some(kind), init: Init::Zero, ..one };
        for &way in self.ways {
            let x = self.x[way as usize];
            let mut bind = w.bind("w", "w_scale");
            bind.extend([("x", x.place()), ("y", Place::Slot(logits, 0)), ("scratch", Place::Scratch)]);
            bind.extend(gain.map(|g| ("gain", g)));
            // Of many rows the last one counts.
            let (rows, n, text) = if way == Way::Few { (0, FEW, "rows") } else { (1, 1, "1") };
            let draft = Draft {
                name: node.name.clone(),
                shapes: format!("[{text}, {hidden}] x [{hidden}, {vocab}]"),
                units: line_units(vocab),
                bind,
                result: Tap { slot: logits, at: 0, rows, channels: vocab, pitch: pitch(vocab), elem: Elem::F32 },
                macs: (hidden * vocab) as u64,
                most: vec![],
            };
            let build = |s: &Schedule| match way {
                Way::Few => linear::vectors(s, &l, n),
                Way::Many | Way::One => linear::vector(s, &l, way == Way::Many),
            };
            self.step(way, draft, build, l.scratch(n))?;
        }
        Ok(())
    }

    fn argmax(&mut self, node: &Node, vocab: usize, logits: SlotId, token: SlotId) -> Result<(), LowerError> {
        for &way in self.ways {
            let mut bind = vec![("logits", Place::Slot(logits, 0)), ("token", Place::Slot(token, 0))];
            if let Some([value, id]) = self.winners[way as usize] {
                bind.extend([("value", Place::Slot(value, 0)), ("id", Place::Slot(id, 0))]);
            }
            let by_lines = self.winners[way as usize].is_some();
            let draft = Draft {
                name: node.name.clone(),
                shapes: format!("of {vocab} logits"),
                units: if way == Way::Few { Units::Rows(1) } else { Units::Fixed(1) },
                bind,
                result: Tap {
                    slot: token,
                    at: 0,
                    rows: usize::from(way != Way::Few),
                    channels: 1,
                    pitch: 1,
                    elem: Elem::F32,
                },
                macs: 0,
                most: vec![],
            };
            self.step(way, draft, |_| if by_lines { split::pick(vocab) } else { head::argmax(vocab) }, 0)?;
        }
        Ok(())
    }
}
