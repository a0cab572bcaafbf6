//! Modules that PyTorch made, on what PyTorch makes of them: `tests/golden/torchscript.py`.

use serde_json::json;

use super::*;
use crate::error::Kind as Who;
use crate::models::golden::{film, goldens, path, relative_error};

fn open(name: &str) -> (TorchScript, Declared) {
    let folder =
        ModelFolder::open(path("tests/golden").join(format!("torchscript-{name}"))).unwrap();
    (
        TorchScript::load(&folder, Device::Cpu, Precision::F32).unwrap(),
        Declared::read(folder.config()).unwrap(),
    )
}

/// What a module gives, for `models::network_conformance`.
pub(in crate::models) fn outputs() -> Vec<Tensor> {
    let (module, declared) = open("named");
    vec![module.forward(&frames(16, 12), &declared).unwrap()]
}

fn frames(rows: i64, columns: i64) -> Tensor {
    let film = film(40, rows, columns);
    Tensor::cat(&[film.narrow(0, 0, 1), film.narrow(0, 39, 1)], 0)
}

#[test]
fn a_scripted_module_gives_its_named_output() {
    let (module, declared) = open("named");
    let golden = goldens("torchscript.safetensors");
    let found = module.forward(&frames(16, 12), &declared).unwrap();
    let error = relative_error(&found, &golden["named.logits"]);
    assert!(error < 1e-5, "{error}");
    let grid = Declared {
        output: Output::parse("grid"),
        ..declared
    };
    let error = relative_error(
        &module.forward(&frames(16, 12), &grid).unwrap(),
        &golden["named.grid"],
    );
    assert!(error < 1e-5, "flattened: {error}");
}

#[test]
fn a_traced_module_gives_its_numbered_outputs_from_pixels() {
    let (module, declared) = open("numbered");
    let golden = goldens("torchscript.safetensors");
    for at in ["0", "1"] {
        let declared = Declared {
            layout: Layout::Nhwc,
            output: Output::parse(at),
            ..declared.clone()
        };
        let error = relative_error(
            &module.forward(&frames(16, 12), &declared).unwrap(),
            &golden[&format!("numbered.{at}")],
        );
        assert!(error < 1e-5, "{at}: {error}");
    }
}

#[test]
fn frames_of_another_size_are_scaled_to_the_declared_one() {
    let (module, declared) = open("named");
    assert_eq!(
        module.forward(&frames(40, 30), &declared).unwrap().size(),
        [2, 4]
    );
    let grid = Declared {
        output: Output::parse("grid"),
        ..declared
    };
    assert_eq!(
        module.forward(&frames(40, 30), &grid).unwrap().size(),
        [2, 6 * 7 * 5],
        "as for 16 x 12"
    );
    let native = Declared { size: None, ..grid };
    assert_eq!(
        module.forward(&frames(40, 30), &native).unwrap().size(),
        [2, 6 * 19 * 14]
    );
}

#[test]
fn outputs_that_are_not_there_are_named() {
    let refused = |name: &str, output: &str| {
        let (module, declared) = open(name);
        let declared = Declared {
            layout: if name == "named" {
                Layout::Nchw
            } else {
                Layout::Nhwc
            },
            output: Output::parse(output),
            ..declared
        };
        let error = module.forward(&frames(16, 12), &declared).unwrap_err();
        assert_eq!(error.kind(), Who::Model);
        error.message().to_owned()
    };
    assert!(refused("named", "embedding").contains("outputs called grid, logits"));
    assert!(refused("named", "0").contains("2 outputs by name"));
    assert!(refused("numbered", "2").contains("2 outputs by number"));
    assert!(refused("numbered", "logits").contains("2 outputs by number"));
}

#[test]
fn what_is_no_module_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("config.json"),
        json!({"architectures": ["TorchScript"]}).to_string(),
    )
    .unwrap();
    std::fs::write(folder.path().join("model.pt"), "nothing of the kind").unwrap();
    let error = TorchScript::load(
        &ModelFolder::open(folder.path()).unwrap(),
        Device::Cpu,
        Precision::F32,
    )
    .unwrap_err();
    assert!(
        error
            .message()
            .contains("model.pt is no TorchScript module"),
        "{error}"
    );
    let (module, declared) = open("named");
    // A picture smaller than the convolution's kernel.
    assert_eq!(
        module
            .forward(
                &frames(2, 2),
                &Declared {
                    size: None,
                    ..declared
                }
            )
            .unwrap_err()
            .kind(),
        Who::Model
    );
}

#[test]
fn declarations_are_read_and_refused() {
    assert_eq!(
        Declared::read(&Config::of(json!({}))).unwrap(),
        Declared::default()
    );
    let read = Declared::read(&Config::of(
        json!({"input_size": 32, "layout": "nhwc", "output": 1}),
    ))
    .unwrap();
    assert_eq!(
        (read.size, read.layout, read.output),
        (Some([32, 32]), Layout::Nhwc, Output::Index(1))
    );
    for config in [
        json!({"input_size": [1, 2, 3]}),
        json!({"input_size": 0}),
        json!({"image_std": [1, 1, 0]}),
        json!({"image_mean": 0.5}),
        json!({"layout": "chw"}),
        json!({"output": -1}),
    ] {
        assert_eq!(
            Declared::read(&Config::of(config.clone()))
                .unwrap_err()
                .kind(),
            Who::Model,
            "{config}"
        );
    }
}
