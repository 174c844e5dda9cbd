"""SAM-family models of `transformers` with random weights, small enough to make in a moment."""

from __future__ import annotations

from typing import Any

SIDE = 64
"""Side of the square that they see, pixels."""


def tiny_sam2(seed: int = 0) -> Any:
    """A Sam2Model of `SIDE` input pixels: the real code with very few channels."""
    import torch
    import transformers

    side, width = SIDE, 32
    vision = transformers.Sam2VisionConfig(
        backbone_config={
            "model_type": "sam2_hiera_det_model", "hidden_size": 8, "image_size": [side, side],
            "blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [8, 16, 32, 64],
            "num_attention_heads_per_stage": [1, 1, 1, 1], "window_size_per_stage": [4, 4, 2, 2],
            "global_attention_blocks": [3], "window_positional_embedding_background_size": [2, 2],
        },
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=width,
    )  # fmt: skip
    prompt = transformers.Sam2PromptEncoderConfig(
        hidden_size=width, image_size=side, patch_size=16, mask_input_channels=4
    )
    decoder = transformers.Sam2MaskDecoderConfig(
        hidden_size=width, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=16
    )
    config = transformers.Sam2Config(
        vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return _lively(transformers.Sam2Model(config))


def tiny_sam(seed: int = 0) -> Any:
    """A SamModel of `SIDE` input pixels."""
    import torch
    import transformers

    side, width = SIDE, 32
    config = transformers.SamConfig(
        vision_config={
            "image_size": side, "hidden_size": 16, "num_hidden_layers": 1, "mlp_dim": 16,
            "num_attention_heads": 2, "output_channels": width, "patch_size": 16,
            "global_attn_indexes": [0], "window_size": 2, "num_pos_feats": width // 2,
        },
        prompt_encoder_config={
            "hidden_size": width, "image_size": side, "patch_size": 16, "mask_input_channels": 4,
        },
        mask_decoder_config={
            "hidden_size": width, "mlp_dim": 32, "num_attention_heads": 2,
            "iou_head_hidden_dim": 16,
        },
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return _lively(transformers.SamModel(config))


def _lively(model: Any) -> Any:
    """The model with weights as large as their fan-in wants: its own start gives logits of 1e-5."""
    import torch

    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=(weight.numel() / len(weight)) ** -0.5)
    return model
