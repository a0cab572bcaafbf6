//! What stages hold of a loaded model: a handle for each thing that models do, whatever network
//! does it.

mod caption;
mod encode;
mod paint;
mod script;
mod shots;
mod speech;

pub use self::caption::Captioner;
pub use self::encode::EncodeModel;
pub use self::paint::PaintModel;
pub use self::script::ScriptModel;
pub use self::shots::ShotsModel;
pub use self::speech::{SpeechModel, VadModel};
