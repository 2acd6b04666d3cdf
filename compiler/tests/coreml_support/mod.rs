//! What Core ML does with an `.mlpackage`, plainly: its files are found through the manifest, the program is decoded, constants
//! are read from the weight file, and every operation is evaluated in 32 bits. Types that are declared have to be those that
//! come out.

mod ops;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use half::f16;
use prost::Message;
use tvlmc::coreml::blob::{ALIGNMENT, FLOAT16, SENTINEL, VERSION};
use tvlmc::coreml::proto::{DataType, Elements, Held, Model, NamedValueType, Operation, Value};

/// A package as it was read.
pub struct Package {
    pub model: Model,
    pub weights: Vec<u8>,
}

/// Elements of a constant or a result.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    Floats(Vec<f32>),
    Ints(Vec<i32>),
    Bools(Vec<bool>),
    Word(String),
}

/// A value with its shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub data: Data,
}

impl Tensor {
    pub fn floats(&self) -> &[f32] {
        let Data::Floats(floats) = &self.data else { panic!("floats, not {self:?}") };
        floats
    }

    pub fn ints(&self) -> &[i32] {
        let Data::Ints(ints) = &self.data else { panic!("integers, not {self:?}") };
        ints
    }

    pub fn bool(&self) -> bool {
        let Data::Bools(bools) = &self.data else { panic!("a truth value, not {self:?}") };
        bools[0]
    }

    pub fn word(&self) -> &str {
        let Data::Word(word) = &self.data else { panic!("a word, not {self:?}") };
        word
    }
}

/// Reads a package the way Core ML does: from the manifest on.
pub fn read(folder: &Path) -> Package {
    let text = fs::read_to_string(folder.join("Manifest.json")).expect("a manifest");
    let manifest: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(manifest["fileFormatVersion"], "1.0.0");
    let entries = manifest["itemInfoEntries"].as_object().expect("entries");
    assert_eq!(entries.len(), 2);
    let root = manifest["rootModelIdentifier"].as_str().expect("a root");
    let path = |entry: &serde_json::Value| folder.join("Data").join(entry["path"].as_str().expect("a path"));
    let model = fs::read(path(&entries[root])).expect("the model");
    let (_, weights) = entries.iter().find(|(id, _)| *id != root).expect("the weights");
    assert!(entries.values().all(|entry| entry["author"] == "com.apple.CoreML"));
    Package {
        model: Model::decode(&model[..]).expect("a model"),
        weights: fs::read(path(weights).join("weight.bin")).expect("weights"),
    }
}

impl Package {
    /// All operations of the one block.
    pub fn operations(&self) -> &[Operation] {
        let program = self.model.ml_program.as_ref().expect("a program");
        assert_eq!((program.version, program.functions.len()), (1, 1));
        let main = &program.functions["main"];
        assert_eq!(main.block_specializations.len(), 1);
        &main.block_specializations[&main.opset].operations
    }

    /// Kinds of operations but constants, in order.
    pub fn kinds(&self) -> Vec<&str> {
        let kinds = self.operations().iter().map(|op| op.r#type.as_str());
        kinds.filter(|kind| *kind != "const").collect()
    }

    /// The halves whose metadata lie at `offset`.
    fn blob(&self, offset: u64) -> Vec<f32> {
        let word = |at: usize| u64::from_le_bytes(self.weights[at..at + 8].try_into().expect("8 bytes"));
        let at = offset as usize;
        assert_eq!(word(0) >> 32, u64::from(VERSION));
        assert_eq!(at % ALIGNMENT, 0, "metadata on a line");
        assert_eq!(word(at), u64::from(FLOAT16) << 32 | u64::from(SENTINEL));
        let (bytes, data) = (word(at + 8) as usize, word(at + 16) as usize);
        assert_eq!(data % ALIGNMENT, 0, "elements on a line");
        let halves = self.weights[data..data + bytes].as_chunks().0.iter();
        halves.map(|&half| f16::from_le_bytes(half).to_f32()).collect()
    }

    /// Offsets of all weights, with their number of elements.
    pub fn blobs(&self) -> BTreeMap<u64, usize> {
        let mut blobs = BTreeMap::new();
        for op in self.operations().iter().filter(|op| op.r#type == "const") {
            if let Some(Held::BlobFile(file)) = &op.attributes["val"].value {
                assert_eq!(file.file_name, "@model_path/weights/weight.bin");
                blobs.insert(file.offset, self.blob(file.offset).len());
            }
        }
        blobs
    }

    fn constant(&self, value: &Value) -> Data {
        let tensor = value.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()).expect("a tensor");
        match value.value.as_ref().expect("elements") {
            Held::BlobFile(file) => Data::Floats(self.blob(file.offset)),
            Held::Immediate(held) => match held.tensor.as_ref().and_then(|t| t.value.as_ref()).expect("elements") {
                Elements::Ints(ints) => Data::Ints(ints.values.clone()),
                Elements::Bools(bools) => Data::Bools(bools.values.clone()),
                Elements::Strings(words) => Data::Word(words.values[0].clone()),
                Elements::Floats(floats) => Data::Floats(floats.values.clone()),
                Elements::Bytes(bytes) => {
                    assert_eq!(tensor.data_type(), DataType::Float16);
                    let halves = bytes.values.as_chunks().0.iter();
                    Data::Floats(halves.map(|&half| f16::from_le_bytes(half).to_f32()).collect())
                }
            },
        }
    }

    /// Runs the program. With `halves` every result that is declared to be of 16 bits is rounded to them. `seen` is shown the
    /// results.
    pub fn run(&self, image: &[f32], halves: bool, seen: &mut dyn FnMut(&Operation, &Tensor)) -> Tensor {
        let main = &self.model.ml_program.as_ref().expect("a program").functions["main"];
        let mut values: BTreeMap<&str, (Tensor, DataType)> = BTreeMap::new();
        let (dtype, shape) = declared(&main.inputs[0]);
        values.insert(&main.inputs[0].name, (Tensor { shape, data: Data::Floats(image.to_vec()) }, dtype));
        for op in self.operations() {
            let results = if op.r#type == "const" {
                let value = &op.attributes["val"];
                vec![Tensor { shape: declared(&op.outputs[0]).1, data: self.constant(value) }]
            } else {
                let mut inputs = BTreeMap::new();
                for (key, argument) in &op.inputs {
                    let name = argument.arguments[0].name.as_deref().expect("a name");
                    let (tensor, dtype) =
                        values.get(name).unwrap_or_else(|| panic!("{}: no {name}", op.outputs[0].name));
                    let float = *dtype == DataType::Float32;
                    assert!(!float || op.r#type == "cast", "{}: {key} is of 32 bits", op.outputs[0].name);
                    inputs.insert(key.as_str(), tensor);
                }
                ops::evaluate(&op.r#type, &inputs)
            };
            assert_eq!(results.len(), op.outputs.len(), "{}", op.r#type);
            for (mut result, output) in results.into_iter().zip(&op.outputs) {
                let (dtype, shape) = declared(output);
                assert_eq!(result.shape, shape, "{} {}", op.r#type, output.name);
                let elements = match &mut result.data {
                    Data::Floats(floats) => {
                        assert!(matches!(dtype, DataType::Float16 | DataType::Float32), "{}", output.name);
                        if halves && dtype == DataType::Float16 {
                            floats.iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32());
                        }
                        floats.len()
                    }
                    Data::Ints(ints) => {
                        assert_eq!(dtype, DataType::Int32, "{}", output.name);
                        ints.len()
                    }
                    Data::Bools(bools) => {
                        assert_eq!(dtype, DataType::Bool, "{}", output.name);
                        bools.len()
                    }
                    Data::Word(_) => {
                        assert_eq!(dtype, DataType::String, "{}", output.name);
                        1
                    }
                };
                assert_eq!(elements, result.shape.iter().product::<usize>(), "{}", output.name);
                seen(op, &result);
                assert!(values.insert(&output.name, (result, dtype)).is_none(), "{} twice", output.name);
            }
        }
        let last = &main.block_specializations[&main.opset].outputs;
        assert_eq!(last.len(), 1);
        let (result, dtype) = values.remove(last[0].as_str()).expect("a result");
        assert_eq!(dtype, DataType::Float32);
        result
    }
}

/// Type and shape that are written down.
fn declared(value: &NamedValueType) -> (DataType, Vec<usize>) {
    let tensor = value.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()).expect("a tensor");
    assert_eq!(tensor.rank as usize, tensor.dimensions.len(), "{}", value.name);
    let size = tensor.dimensions.iter().map(|d| d.constant.expect("a constant").size as usize);
    (tensor.data_type(), size.collect())
}
