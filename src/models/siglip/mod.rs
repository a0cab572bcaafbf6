//! SigLIP: pictures and texts as vectors of one space, each pair judged for itself. Zhai et al.,
//! "Sigmoid Loss for Language Image Pre-Training" (arXiv:2303.15343); the reference is
//! transformers' `modeling_siglip.py`, whose checkpoint keys it reads.

use tch::{Device, Kind, Tensor};

use super::attention::{Attention, AttentionConfig};
use super::config::Config;
use super::folder::ModelFolder;
use super::image_processor::ImageProcessor;
use super::layers::{Activation, Embedding, LayerNorm, Linear, Mlp};
use super::network_spec::{FrameEncoderSpec, Load, NetworkSpec, NetworkTask};
use super::picture_encoder::{Features, PictureEncoder, Scoring, TextFeatures, l2_normalized};
use super::text::Tokenizer;
use super::transformer::{LayerKeys, PreNormLayer, TransformerConfig, load_layers};
use super::vision_tower::{Grid, VisionConfig, VisionSpec, VisionTower};
use super::weights::{Scope, Weights};
use crate::error::{Error, Result};
use crate::tensor::Precision;

/// Its entry in the table of networks.
pub const NETWORK: NetworkSpec = NetworkSpec {
    classes: &[("SiglipModel", NetworkTask::EncodeFramesAndTexts)],
    load: Load::FrameEncoder(FrameEncoderSpec {
        load: |folder, device, precision| Ok(Box::new(Siglip::load(folder, device, precision)?)),
        class_names: |_| Ok(None),
        unit_length: true,
    }),
};

/// Texts that are read at once.
const TEXTS_A_PASS: usize = 64;

/// SigLIP's image tower as it differs from others: no class token, as a head pools the patches.
const SPEC: VisionSpec = VisionSpec {
    patches: "patch_embedding",
    patch_bias: true,
    class_token: None,
    registers: None,
    positions: "position_embedding.weight",
    batched: false,
    grid: Grid::Fixed,
    pre_norm: None,
    layers: "encoder.layers",
    layer: LayerKeys::CLIP,
    final_norm: "post_layernorm",
};

/// The network's sizes; the default is base-patch16-224's.
#[derive(Debug, Clone, PartialEq)]
pub struct SiglipConfig {
    /// Layers of the image tower.
    pub vision: TransformerConfig,
    /// Rows and columns of pictures.
    pub image: i64,
    /// Rows and columns of a patch.
    pub patch: i64,
    /// Layers of the text tower.
    pub text: TransformerConfig,
    /// Tokens known.
    pub vocab_size: i64,
    /// Tokens of every text: short ones are filled up.
    pub positions: i64,
    /// Width of the vectors.
    pub projection: i64,
    /// What short texts are filled up with, where the tokenizer does not say.
    pub pad: i64,
}

impl Default for SiglipConfig {
    fn default() -> Self {
        let tower = TransformerConfig {
            width: 768,
            heads: 12,
            layers: 12,
            intermediate: 3072,
            activation: Activation::GeluTanh,
            epsilon: 1e-6,
        };
        let (vision, text) = (tower.clone(), tower);
        Self {
            vision,
            image: 224,
            patch: 16,
            text,
            vocab_size: 32000,
            positions: 64,
            projection: 768,
            pad: 1,
        }
    }
}

impl SiglipConfig {
    /// From config.json: its `vision_config` with the fields of [`TransformerConfig::read`],
    /// `image_size` and `patch_size`, its `text_config` with those and `vocab_size`,
    /// `max_position_embeddings`, `projection_size` and `pad_token_id`; what is missing is the
    /// default's.
    ///
    /// # Errors
    /// Model, where a field is not what it must be.
    pub fn read(config: &Config) -> Result<Self> {
        let default = Self::default();
        let (vision, text) = (
            config.section("vision_config")?,
            config.section("text_config")?,
        );
        let tower = TransformerConfig::read(&text, &default.text, "gelu_pytorch_tanh")?;
        let read = Self {
            vision: TransformerConfig::read(&vision, &default.vision, "gelu_pytorch_tanh")?,
            image: vision.integer_or("image_size", default.image)?,
            patch: vision.integer_or("patch_size", default.patch)?,
            vocab_size: text.integer_or("vocab_size", default.vocab_size)?,
            positions: text.integer_or("max_position_embeddings", default.positions)?,
            projection: text.integer_or("projection_size", tower.width)?,
            pad: text.integer_or("pad_token_id", default.pad)?,
            text: tower,
        };
        if read.patch == 0
            || read.image < read.patch
            || read.positions == 0
            || read.text.layers == 0
        {
            return Err(config.error(
                "`patch_size` must be above 0 and at most `image_size`, the other sizes above 0",
            ));
        }
        if read.projection != read.vision.width || !vision.boolean_or("vision_use_head", true)? {
            return Err(config.error(
                "the image tower must pool by its head, and `projection_size` be its `hidden_size`",
            ));
        }
        Ok(read)
    }
}

/// The network with its weights.
#[derive(Debug)]
pub struct Siglip {
    vision: VisionTower,
    head: Head,
    text: TextTower,
    tokenizer: Option<Tokenizer>,
    preprocess: ImageProcessor,
    scoring: Scoring,
    device: Device,
}

/// What pools a picture: one vector that was learnt asks all patches.
#[derive(Debug)]
struct Head {
    probe: Tensor,
    attention: Attention,
    norm: LayerNorm,
    mlp: Mlp,
}

/// The text tower: every token sees every other, and the last place, filled up or not, stands for
/// the text.
#[derive(Debug)]
struct TextTower {
    tokens: Embedding,
    positions: Tensor,
    layers: Vec<PreNormLayer>,
    last: PreNormLayer,
    norm: LayerNorm,
    head: Linear,
    vocab_size: i64,
    pad: i64,
}

impl Siglip {
    /// The network of a folder whose architecture is `SiglipModel`.
    ///
    /// # Errors
    /// Config, where the folder is another network's; model, where its config or weights do not
    /// fit.
    pub fn load(folder: &ModelFolder, device: Device, precision: Precision) -> Result<Self> {
        NETWORK.expect(folder)?;
        let config = SiglipConfig::read(folder.config())?;
        let preprocess = ImageProcessor::load(folder, ImageProcessor::siglip(config.image))?;
        let mut network = Self::build(folder.weights(device, precision)?, &config, preprocess)?;
        network.tokenizer = folder
            .file("tokenizer.json")
            .map(|_| Tokenizer::load(folder))
            .transpose()?;
        if let Some(pad) = network.tokenizer.as_ref().and_then(Tokenizer::pad) {
            network.text.pad = i64::from(pad);
        }
        Ok(network)
    }

    /// The network of these weights; it has no tokenizer.
    ///
    /// # Errors
    /// Model, where they do not fit.
    pub fn build(
        weights: Weights,
        config: &SiglipConfig,
        preprocess: ImageProcessor,
    ) -> Result<Self> {
        let _frozen = crate::tensor::guard();
        let (root, device) = (weights.root(), weights.device());
        let scope = &root / "vision_model";
        let tower = VisionConfig {
            layers: config.vision.clone(),
            image: config.image,
            patch: config.patch,
        };
        let number = |name| -> Result<f64> { Ok(root.take_f32(name, &[1])?.f_double_value(&[0])?) };
        let scoring = Scoring::Sigmoid {
            scale: number("logit_scale")?.exp(),
            bias: number("logit_bias")?,
        };
        let network = Self {
            vision: VisionTower::load(&scope, &tower, &SPEC, &preprocess)?,
            head: Head::load(&(&scope / "head"), &config.vision)?,
            text: TextTower::load(&(&root / "text_model"), config)?,
            tokenizer: None,
            preprocess,
            scoring,
            device,
        };
        weights.finish()?;
        Ok(network)
    }

    /// The vectors of texts of tokens `[n, positions]`: `[n, projection]`, f32, of length 1.
    ///
    /// # Errors
    /// Model, where the texts have another shape or hold an unknown token; overload, where memory
    /// is short.
    pub fn text_vectors(&self, tokens: &Tensor) -> Result<Tensor> {
        let _frozen = crate::tensor::guard();
        l2_normalized(&self.text.forward(tokens, self.device)?)
    }

    /// Frames of the network's size to vectors, not of length 1.
    fn pooled(&self, frames: &Tensor) -> Result<Tensor> {
        self.head.forward(&self.vision.states(frames)?)
    }
}

impl PictureEncoder for Siglip {
    fn device(&self) -> Device {
        self.device
    }

    fn size(&self) -> [i64; 2] {
        self.vision.size()
    }

    fn encode(&self, frames: &Tensor) -> Result<Features> {
        let _frozen = crate::tensor::guard();
        let embedding = l2_normalized(&self.pooled(&self.preprocess.fit(frames)?)?)?;
        Ok(Features {
            embedding,
            probabilities: None,
        })
    }

    fn texts(&self, texts: &[String]) -> Result<TextFeatures> {
        let tokenizer = self.tokenizer.as_ref();
        let tokenizer = tokenizer.ok_or_else(|| {
            Error::config("the model's folder has no tokenizer.json, which labels need")
        })?;
        let length = self.text.positions.size()[0] as usize;
        let mut vectors = Vec::new();
        for texts in texts.chunks(TEXTS_A_PASS) {
            let mut tokens = Vec::with_capacity(texts.len() * length);
            for text in texts {
                let row = tokenizer.encode_within(text, length)?;
                let filling = std::iter::repeat_n(self.text.pad, length - row.len());
                tokens.extend(row.into_iter().map(i64::from).chain(filling));
            }
            vectors.push(self.text_vectors(
                &Tensor::f_from_slice(&tokens)?.f_view([texts.len() as i64, length as i64])?,
            )?);
        }
        Ok(TextFeatures {
            vectors: Tensor::f_cat(&vectors, 0)?,
            scoring: self.scoring,
        })
    }
}

impl Head {
    fn load(scope: &Scope<'_>, tower: &TransformerConfig) -> Result<Self> {
        let width = tower.width;
        let attention = scope / "attention";
        // PyTorch's nn.MultiheadAttention: query, key and value in one tensor.
        let weight = attention.take("in_proj_weight", &[3 * width, width])?;
        let bias = attention.take("in_proj_bias", &[3 * width])?;
        let part = |from: i64, rows: i64| -> Result<Linear> {
            let weight = weight
                .f_narrow(0, from * width, rows * width)?
                .f_contiguous()?;
            Ok(Linear::new(
                weight,
                Some(
                    bias.f_narrow(0, from * width, rows * width)?
                        .f_contiguous()?,
                ),
            ))
        };
        let out = Linear::load(&(&attention / "out_proj"), width, width)?;
        let heads = AttentionConfig::self_attention(width, tower.heads);
        Ok(Self {
            probe: scope.take("probe", &[1, 1, width])?,
            attention: Attention::split(
                part(0, 1)?,
                part(1, 2)?,
                out,
                heads,
                scope.weights().attention(),
            )
            .packed()?,
            norm: LayerNorm::load(&(scope / "layernorm"), width, tower.epsilon)?,
            mlp: Mlp::load(
                [&(scope / "mlp.fc1"), &(scope / "mlp.fc2")],
                width,
                tower.intermediate,
                tower.activation,
            )?,
        })
    }

    /// `[n, t, width]` to `[n, width]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (n, _, width) = x.size3()?;
        let asked = self.attention.attend(
            &self.probe.f_expand([n, 1, width], false)?,
            &self.attention.keys(x)?,
            None,
        )?;
        Ok(self
            .mlp
            .forward(&self.norm.forward(&asked)?)?
            .f_add_(&asked)?
            .f_select(1, 0)?)
    }
}

impl TextTower {
    fn load(scope: &Scope<'_>, config: &SiglipConfig) -> Result<Self> {
        let (embeddings, width) = (scope / "embeddings", config.text.width);
        let mut layers = load_layers(
            &(scope / "encoder" / "layers"),
            &config.text,
            &LayerKeys::CLIP,
        )?;
        let last = layers
            .pop()
            .ok_or_else(|| Error::model("a text tower without layers"))?;
        Ok(Self {
            tokens: Embedding::load(&(&embeddings / "token_embedding"), config.vocab_size, width)?,
            positions: (&embeddings / "position_embedding")
                .take("weight", &[config.positions, width])?,
            layers,
            last,
            norm: LayerNorm::load(&(scope / "final_layer_norm"), width, config.text.epsilon)?,
            head: Linear::load(&(scope / "head"), width, config.projection)?,
            vocab_size: config.vocab_size,
            pad: config.pad,
        })
    }

    fn forward(&self, tokens: &Tensor, device: Device) -> Result<Tensor> {
        let (size, length) = (tokens.size(), self.positions.size()[0]);
        if size.len() != 2 || size[0] == 0 || size[1] != length || tokens.kind() != Kind::Int64 {
            return Err(Error::model(format!(
                "texts must be 64-bit token numbers [n, {length}], got {:?} {size:?}",
                tokens.kind()
            )));
        }
        if tokens.f_min()?.f_int64_value(&[])? < 0
            || tokens.f_max()?.f_int64_value(&[])? >= self.vocab_size
        {
            return Err(Error::model(format!(
                "a token is not among the text tower's {}",
                self.vocab_size
            )));
        }
        let mut x = self
            .tokens
            .forward(&tokens.f_to_device(device)?)?
            .f_add_(&self.positions)?;
        for layer in &self.layers {
            x = layer.forward(&x, false)?;
        }
        self.head
            .forward(&self.norm.forward(&self.last.forward_one(&x, length - 1)?)?)
    }
}

#[cfg(test)]
pub(in crate::models) mod tests;
