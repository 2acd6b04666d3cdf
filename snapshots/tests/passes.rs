//! The graphs of the nano model after import and after each pass, a node per line.

use std::fmt::Write as _;
use std::path::Path;

use compiler::frontend::{Checkpoint, OpenOptions, describe};
use compiler::passes::PASSES;
use ir::{Graph, Op, Weights};

#[test]
fn graphs_after_each_pass_are_as_reviewed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/nano/hf");
    let checkpoint = Checkpoint::open(&folder, &OpenOptions::default()).expect("the nano model is in the project");
    let described = describe(&checkpoint).expect("it is a FastVLM").description;
    let mut weights = Weights::new();
    let graphs = [models::vision(&described, &mut weights), models::decoder(&described, &mut weights)];
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../passes");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for graph in graphs {
            let mut graph = graph.expect("a graph");
            let name = graph.name.clone();
            insta::assert_snapshot!(format!("{name}-0-import"), listing(&graph));
            for (i, pass) in PASSES.iter().enumerate() {
                graph = (pass.run)(&graph, &mut weights).unwrap_or_else(|e| panic!("{}: {e}", pass.name));
                insta::assert_snapshot!(format!("{name}-{}-{}", i + 1, pass.name), listing(&graph));
            }
        }
    });
}

/// `name = op(inputs) shape`, the bodies of regions indented.
fn listing(graph: &Graph) -> String {
    let mut out = String::new();
    list(&mut out, graph, "");
    out
}

fn list(out: &mut String, graph: &Graph, indent: &str) {
    for (id, node) in graph.nodes() {
        let inputs: Vec<&str> = graph.inputs(id).iter().map(|&i| graph[i].name.as_str()).collect();
        let op = match &node.op {
            Op::Region { kind, .. } => format!("{kind:?}"),
            Op::Activation(kind) => format!("{kind:?}"),
            Op::Conv2d { stride, groups, .. } if *groups > 1 => format!("DepthwiseConv2d/{stride}"),
            Op::Conv2d { stride, .. } => format!("Conv2d/{stride}"),
            op => op.name().to_string(),
        };
        let _ = writeln!(out, "{indent}{} = {op}({}) {}", node.name, inputs.join(", "), node.shape);
        if let Op::Region { body, .. } = &node.op {
            list(out, body, &format!("{indent}    "));
        }
    }
}
