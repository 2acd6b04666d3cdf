//! FastVLM: model descriptions, graph builders and tensor names.
//!
//! [`vision`] and [`decoder`] build the graphs of a [`Description`] as the reference
//! implementations compute them, unfused and unfolded; the compiler's passes do the rest. The
//! builders are also what says which tensors a checkpoint must have: [`expected_tensors`].

mod builder;
mod decoder;
mod desc;
mod names;
mod near;
pub mod recipe;
mod vision;

pub use builder::BuildError;
pub use decoder::{decoder, embed, embedding};
pub use desc::{Description, Image, Layout, Policy, Text, Tokens, Vision, VisionForm};
pub use near::edit_distance;
pub use recipe::{Recipe, RecipeError};
pub use vision::vision;

/// Checkpoint names and shapes of all tensors that the model reads, in order of use.
pub fn expected_tensors(description: &Description) -> Result<Vec<(String, Vec<usize>)>, BuildError> {
    let mut weights = ir::Weights::new();
    vision(description, &mut weights)?;
    embedding(description, &mut weights);
    decoder(description, &mut weights)?;
    Ok(weights.tensors().map(|(name, shape)| (name.to_string(), shape.to_vec())).collect())
}
