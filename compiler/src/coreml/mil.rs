//! Building a MIL program: operations with typed results, constants, and weights that lie in the weight file.
//!
//! Every result's type is written down; Core ML infers it again when it compiles a model and refuses one that differs.

use std::collections::{BTreeMap, BTreeSet};

use half::f16;
use ir::WeightId;

use super::blob::Blobs;
use super::proto::{
    Argument, Binding, BlobFileValue, Block, ConstantDimension, DataType, Dimension, Elements, Function, Held,
    ImmediateValue, NamedValueType, Operation, Program, RepeatedBools, RepeatedBytes, RepeatedInts, RepeatedStrings,
    TensorType, TensorValue, Value, ValueType,
};

/// Ops of iOS 15 and macOS 12, which is what packages ask for.
pub const OPSET: &str = "CoreML5";

/// Where an operation finds the weight file.
const WEIGHT_FILE: &str = "@model_path/weights/weight.bin";

/// A result of an operation, or a constant.
#[derive(Clone, Debug, PartialEq)]
pub struct Var {
    /// What operations call it.
    pub name: String,
    /// Type of its elements.
    pub dtype: DataType,
    /// Its shape; a scalar has none.
    pub shape: Vec<usize>,
}

/// A program with one block, under construction.
#[derive(Default)]
pub struct Builder {
    operations: Vec<Operation>,
    names: BTreeSet<String>,
    blobs: Blobs,
}

impl Builder {
    /// The input of the program.
    pub fn input(&mut self, name: &str, shape: &[usize]) -> Var {
        Var { name: self.unique(name), dtype: DataType::Float32, shape: shape.to_vec() }
    }

    /// An operation with one result.
    pub fn op(&mut self, kind: &str, name: &str, inputs: &[(&str, &Var)], dtype: DataType, shape: &[usize]) -> Var {
        let result = Var { name: self.unique(name), dtype, shape: shape.to_vec() };
        self.push(kind, inputs, std::slice::from_ref(&result));
        result
    }

    /// An operation with several results of 16-bit floats, all of one shape.
    pub fn ops(&mut self, kind: &str, names: &[String], inputs: &[(&str, &Var)], shape: &[usize]) -> Vec<Var> {
        let one = |name: &String| Var { name: self.unique(name), dtype: DataType::Float16, shape: shape.to_vec() };
        let results: Vec<Var> = names.iter().map(one).collect();
        self.push(kind, inputs, &results);
        results
    }

    fn push(&mut self, kind: &str, inputs: &[(&str, &Var)], results: &[Var]) {
        let argument = |var: &Var| Argument { arguments: vec![Binding { name: Some(var.name.clone()) }] };
        let name = results.first().map(|result| result.name.clone()).unwrap_or_default();
        self.operations.push(Operation {
            r#type: kind.to_string(),
            inputs: inputs.iter().map(|(key, var)| (key.to_string(), argument(var))).collect(),
            outputs: results.iter().map(named).collect(),
            attributes: BTreeMap::from([("name".to_string(), text(&name))]),
        });
    }

    /// A vector of integers.
    pub fn ints(&mut self, name: &str, values: &[usize]) -> Var {
        let elements = Elements::Ints(RepeatedInts { values: values.iter().map(|&v| v as i32).collect() });
        self.constant(name, DataType::Int32, &[values.len()], immediate(elements))
    }

    /// One integer, which may be negative.
    pub fn int(&mut self, name: &str, value: i32) -> Var {
        self.constant(name, DataType::Int32, &[], immediate(Elements::Ints(RepeatedInts { values: vec![value] })))
    }

    /// A truth value.
    pub fn bool(&mut self, name: &str, value: bool) -> Var {
        self.constant(name, DataType::Bool, &[], immediate(Elements::Bools(RepeatedBools { values: vec![value] })))
    }

    /// A word, such as the name of a mode.
    pub fn word(&mut self, name: &str, word: &str) -> Var {
        let elements = Elements::Strings(RepeatedStrings { values: vec![word.to_string()] });
        self.constant(name, DataType::String, &[], immediate(elements))
    }

    /// A 16-bit float, or nothing where the value is too large or too small to be one.
    pub fn half(&mut self, name: &str, value: f64) -> Option<Var> {
        let half = f16::from_f64(value);
        if !half.is_finite() || (half == f16::ZERO && value != 0.0) {
            return None;
        }
        let elements = Elements::Bytes(RepeatedBytes { values: half.to_le_bytes().to_vec() });
        Some(self.constant(name, DataType::Float16, &[], immediate(elements)))
    }

    /// A weight in the weight file. `shape` has as many elements as the weight, in the same order; `whose` names it in messages.
    pub fn weight(&mut self, name: &str, whose: &str, id: WeightId, shape: &[usize]) -> Var {
        let offset = self.blobs.add(whose, id, shape.iter().product());
        let held = Held::BlobFile(BlobFileValue { file_name: WEIGHT_FILE.to_string(), offset });
        self.constant(name, DataType::Float16, shape, held)
    }

    fn constant(&mut self, name: &str, dtype: DataType, shape: &[usize], held: Held) -> Var {
        let var = Var { name: self.unique(name), dtype, shape: shape.to_vec() };
        let value = Value { r#type: Some(value_type(&var)), value: Some(held) };
        self.operations.push(Operation {
            r#type: "const".to_string(),
            inputs: BTreeMap::new(),
            outputs: vec![named(&var)],
            attributes: BTreeMap::from([("name".to_string(), text(&var.name)), ("val".to_string(), value)]),
        });
        var
    }

    /// A name of letters, digits and `_` that nothing else has.
    fn unique(&mut self, name: &str) -> String {
        let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let mut name = if plain.starts_with(|c: char| c.is_ascii_digit()) { format!("_{plain}") } else { plain };
        while !self.names.insert(name.clone()) {
            name.push('_');
        }
        name
    }

    /// The program from `input` to `output`, and what its weight file holds.
    pub fn finish(self, input: &Var, output: &Var) -> (Program, Blobs) {
        let block = Block { outputs: vec![output.name.clone()], operations: self.operations };
        let main = Function {
            inputs: vec![named(input)],
            opset: OPSET.to_string(),
            block_specializations: BTreeMap::from([(OPSET.to_string(), block)]),
        };
        (Program { version: 1, functions: BTreeMap::from([("main".to_string(), main)]) }, self.blobs)
    }
}

fn named(var: &Var) -> NamedValueType {
    NamedValueType { name: var.name.clone(), r#type: Some(value_type(var)) }
}

fn value_type(var: &Var) -> ValueType {
    let fixed = |&size: &usize| Dimension { constant: Some(ConstantDimension { size: size as u64 }) };
    let tensor = TensorType {
        data_type: var.dtype as i32,
        rank: var.shape.len() as i64,
        dimensions: var.shape.iter().map(fixed).collect(),
    };
    ValueType { tensor_type: Some(tensor) }
}

fn immediate(elements: Elements) -> Held {
    Held::Immediate(ImmediateValue { tensor: Some(TensorValue { value: Some(elements) }) })
}

fn text(text: &str) -> Value {
    let scalar = TensorType { data_type: DataType::String as i32, rank: 0, dimensions: Vec::new() };
    let elements = Elements::Strings(RepeatedStrings { values: vec![text.to_string()] });
    Value { r#type: Some(ValueType { tensor_type: Some(scalar) }), value: Some(immediate(elements)) }
}
