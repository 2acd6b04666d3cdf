//! A head in two halves: the first for all rows, both for the few that can win, and both for all where all logits
//! are asked for.

use kernels::Elem;
use kernels::library::linear::Norm;
use kernels::library::split::{self, RESCORE_SCRATCH, Split};
use kernels::library::{lines, pitch};

use super::context::{Draft, Packed, SlotId, line_units};
use super::decoder::{Decoder, Way};
use super::{LowerError, Place, Tap, Units};
use crate::pack::PackId;

impl Decoder<'_, '_> {
    /// The steps of the head `w`, whose second half is `low`, after a norm with its gain. Afterwards `logits` holds
    /// the first half of all logits, which one more step completes, and the winners are what both halves give.
    pub fn split_head(
        &mut self,
        name: &str,
        (norm, gain): (Norm, Option<Place>),
        (w, low): (&Packed, PackId),
        logits: SlotId,
    ) -> Result<(), LowerError> {
        let most = self.ways.iter().filter(|way| **way != Way::Many).map(|way| self.most(*way)).max().unwrap_or(1);
        let h = Split { inputs: w.inputs, vocab: w.outputs, rows: most };
        let (vocab, n_lines) = (h.vocab, lines(h.vocab));
        // Prepared rows outlive their phase, for the logits that may be asked for later.
        let q = Place::Slot(self.cx.slot(format!("{name}.rows"), h.row_words(), true), 0);
        let second = [("q", q), ("low", Place::Weight(low)), ("low_scale", Place::Scales(low))];
        for &way in self.ways {
            let (x, few) = (self.x[way as usize], way == Way::Few);
            // Of many rows the last one counts.
            let n = if few { self.most(way) } else { 1 };
            let (rows, text) = if few { (0, "rows") } else { (1, "1") };
            let mut by_line = |what: &str| self.cx.slot(format!("{name}.{what}"), n * h.line_pitch(), false);
            let (best, top) = (Place::Slot(by_line("best"), 0), Place::Slot(by_line("top"), 0));
            let (value, id) = (by_line("value"), by_line("id"));
            self.winners[way as usize] = Some([value, id]);

            let mut bind = vec![("x", x.place()), ("q", q), ("scratch", Place::Scratch)];
            bind.extend(gain.map(|g| ("gain", g)));
            let draft = Draft {
                name: format!("{name}.rows"),
                shapes: format!("[{text}, {}] to bytes", h.inputs),
                units: if few { Units::Rows(1) } else { Units::Fixed(1) },
                bind,
                // The bytes are not floats: what is looked at are the rows they came from.
                result: x.tap(),
                macs: 0,
                most: vec![],
            };
            self.step(way, draft, |_| split::row(&h, norm, way == Way::Many), h.row_scratch())?;

            let mut bind = w.bind("w", "w_scale");
            bind.extend([("q", q), ("reach", Place::Reach(low)), ("high", Place::Slot(logits, 0))]);
            bind.extend([("best", best), ("top", top)]);
            let draft = Draft {
                name: format!("{name}.first"),
                shapes: format!("[{text}, {}] x [{}, {vocab}], its first half", h.inputs, h.inputs),
                units: line_units(vocab),
                bind,
                result: Tap { slot: logits, at: 0, rows, channels: vocab, pitch: pitch(vocab), elem: Elem::F32 },
                macs: (h.inputs * vocab) as u64,
                most: vec![],
            };
            self.step(way, draft, |s| split::screen(s, &h, n), 0)?;

            let mut bind = second.to_vec();
            bind.extend([("reach", Place::Reach(low)), ("high", Place::Slot(logits, 0))]);
            bind.extend([("best", best), ("top", top), ("value", Place::Slot(value, 0))]);
            bind.extend([("id", Place::Slot(id, 0)), ("scratch", Place::Scratch)]);
            let draft = Draft {
                name: format!("{name}.candidates"),
                shapes: format!("of {vocab} logits those that may be the largest, by lines"),
                units: line_units(vocab),
                bind,
                result: Tap { slot: value, at: 0, rows, channels: n_lines, pitch: h.line_pitch(), elem: Elem::F32 },
                macs: 0,
                most: vec![],
            };
            self.step(way, draft, |_| split::rescore(&h, few), RESCORE_SCRATCH)?;
        }
        let mut bind = second.to_vec();
        bind.push(("logits", Place::Slot(logits, 0)));
        let draft = Draft {
            name: name.to_string(),
            shapes: format!("[rows, {}] x [{}, {vocab}], its second half", h.inputs, h.inputs),
            units: line_units(vocab),
            bind,
            result: Tap { slot: logits, at: 0, rows: 0, channels: vocab, pitch: pitch(vocab), elem: Elem::F32 },
            macs: (h.inputs * vocab) as u64,
            most: vec![("rows", most as i64)],
        };
        let step = self.cx.step(draft, |_| split::complete(&h), |_| 0)?;
        self.all_logits.steps.push(step);
        Ok(())
    }
}
