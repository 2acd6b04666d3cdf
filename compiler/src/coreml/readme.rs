//! What goes beside a model that no package of ours connects: who adds it to an app writes the last lines.

use super::folder;
use crate::assemble::Assembled;

/// Name of the file, beside the model's folder.
pub const README: &str = "COREML.md";

/// Its text, for a crate or a library.
pub fn readme(assembled: &Assembled) -> String {
    let vision = &assembled.prepared.description.vision;
    let (side, tokens, hidden) = (vision.side, vision.tokens(), assembled.prepared.description.text.hidden);
    let package = folder(&assembled.name);
    let others = match assembled.prepared.program.smaller.is_empty() {
        true => "",
        false => {
            " Pictures of other sides are the processor's, also those that\npressure makes smaller: an app whose pictures are to \
             stay with the engine asks for this side."
        }
    };
    format!(
        "# {package}\n\n\
         The vision tower and the projector as a Core ML model, for the Neural Engine and the GPU, with 16-bit floats. It is for pictures of\n\
         {side} x {side} pixels.{others}\n\n\
         | | |\n|---|---|\n\
         | `image`, in | 32-bit floats `[1, 3, {side}, {side}]`: red, green and blue planes, 0 to 255 |\n\
         | `rows`, out | 32-bit floats `[1, {tokens}, {hidden}]` |\n\n\
         Add the folder to the app's target in Xcode, which compiles it. Then give the library a delegate when the model is opened; it is\n\
         handed the pixels as bytes `[{side}, {side}, 3]`, colors together, and room for the rows:\n\n\
         - Rust: a type with the trait `Delegate`, to `Model::set_delegate`.\n\
         - C, Objective-C, Swift: the field `delegate` of `tvlm_open_options`, whose comment in `tvlm.h` says who calls it when. A function\n\
         \x20 that makes planes of the pixels, calls the model's `prediction`, and copies `rows` is all:\n\n\
         ```c\n\
         static int32_t vision(void *context, const uint8_t *rgb, uint32_t side, float *rows, uint32_t tokens, uint32_t hidden) {{\n\
         \x20 return run_core_ml(context, rgb, side, rows, (size_t)tokens * hidden) ? 0 : 1; /* 1: the processor does it */\n\
         }}\n\n\
         tvlm_delegate coreml = TVLM_DELEGATE_INIT;\n\
         coreml.name = \"coreml\";\n\
         coreml.context = ml_model;\n\
         coreml.vision = vision;\n\
         options.delegate = &coreml;\n\
         ```\n\n\
         `tvlmc compile --emit package` writes all of that in Swift (`TvlmCoreML`), to use or to read.\n\n\
         What it fails on, and all pictures after one whose rows are infinite or NaN, the processor encodes; the library tells why. Rows\n\
         differ a little from the processor's, and so may answers. Core ML did not run this model when it was written: compare answers\n\
         with and without it before an app is published.\n"
    )
}
