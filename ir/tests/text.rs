//! The text form: reads back, is stable, and names what is wrong.

use ir::{Activation, Axis, DType, Graph, Module, Op, RegionKind, Shape, TextError, Weights, verify};

fn module() -> Module {
    let mut weights = Weights::new();
    let weight = weights.tensor("model.fc.weight", &[4, 4]);
    let bias = weights.values(vec![0.5, -1e-9, 1e300, 0.0]);
    let rows = Shape::Rows { n: Axis::Positions, c: 4 };
    let mut body = Graph::new("block.mlp");
    let x = body.input("block.mlp.in", rows, DType::F32);
    let y = body.add(&weights, "block.mlp.fc", Op::Linear { weight, bias: Some(bias) }, &[x]).expect("fits");
    let y = body.add(&weights, "block.mlp.act", Op::Activation(Activation::Silu), &[y]).expect("fits");
    body.add(&weights, "block.mlp.add", Op::Add, &[x, y]).expect("fits");
    let mut graph = Graph::new("a \"graph\"");
    let x = graph.input("rows", rows, DType::F32);
    let op = Op::Region { kind: RegionKind::Mlp, body: Box::new(body) };
    let y = graph.add(&weights, "block.mlp", op, &[x]).expect("fits");
    graph.add(&weights, "argmax", Op::ArgMax, &[y]).expect("fits");
    Module { graph, weights }
}

#[test]
fn reads_back() {
    let module = module();
    verify(&module.graph, &module.weights).expect("verified");
    let text = module.to_ron();
    let read = Module::from_ron(&text).expect("text");
    assert_eq!(read, module);
    assert_eq!(read.to_ron(), text);
    assert_eq!(Graph::from_ron(&module.graph.to_ron()).expect("text"), module.graph);
}

#[test]
fn looks_like_this() {
    let expected = r#"(
    graph: (
        name: "a \"graph\"",
        nodes: [
            (name:"rows",inputs:[],shape:Rows(n:Positions,c:4),dtype:F32,op:Input),
            (name:"block.mlp",inputs:["rows"],shape:Rows(n:Positions,c:4),dtype:F32,op:Region(kind:Mlp,body:(
                name: "block.mlp",
                nodes: [
                    (name:"block.mlp.in",inputs:[],shape:Rows(n:Positions,c:4),dtype:F32,op:Input),
                    (name:"block.mlp.fc",inputs:["block.mlp.in"],shape:Rows(n:Positions,c:4),dtype:F32,op:Linear(weight:(0),bias:Some((1)))),
                    (name:"block.mlp.act",inputs:["block.mlp.fc"],shape:Rows(n:Positions,c:4),dtype:F32,op:Activation(Silu)),
                    (name:"block.mlp.add",inputs:["block.mlp.in","block.mlp.act"],shape:Rows(n:Positions,c:4),dtype:F32,op:Add),
                ],
            ))),
            (name:"argmax",inputs:["block.mlp"],shape:Rows(n:Positions,c:1),dtype:U32,op:ArgMax),
        ],
    ),
    weights: (
        nodes: [
            /* w0 */ (op:Tensor(name:"model.fc.weight"),shape:[4,4]),
            /* w1 */ (op:Values([0.5,-1e-9,1e300,0.0]),shape:[4]),
        ],
        pinned: [],
    ),
)
"#;
    assert_eq!(module().to_ron(), expected);
}

#[test]
fn mistakes_are_named() {
    let text = "(name:\"g\",nodes:[(name:\"y\",inputs:[\"x\"],shape:Rows(n:Positions,c:4),dtype:F32,op:Add)])";
    let wrong = Graph::from_ron(text).expect_err("no x");
    assert_eq!(wrong, TextError::NoSuchNode { node: "y".into(), input: "x".into() });
    assert!(matches!(Graph::from_ron("(name:"), Err(TextError::Syntax(_))));
}
