//! Fields of the configuration, and their errors.

use super::*;

/// Fields without effect are not reported, and heads have one name.
#[test]
fn idle_fields_are_accepted() {
    let config = UNet2dConditionConfig::from_json(
        r#"{"num_attention_heads": [5, 10, 20, 20], "addition_embed_type_num_heads": 64,
        "resnet_out_scale_factor": 1, "resnet_skip_time_act": false, "upcast_attention": true,
        "mid_block_only_cross_attention": null, "cross_attention_norm": null,
        "class_embeddings_concat": false, "encoder_hid_dim": 24, "of_tomorrow": 1}"#,
    )
    .unwrap();
    assert_eq!(config.unused_fields, ["of_tomorrow"]);
    assert_eq!(
        config.attention_head_dim,
        PerBlock::Each(vec![5, 10, 20, 20])
    );
    let text = config.to_json();
    assert!(text.contains("\"upcast_attention\": true"), "{text}");
    assert!(
        text.contains("\"_class_name\": \"UNet2DConditionModel\""),
        "{text}"
    );
    let again = UNet2dConditionConfig::from_json(&text).unwrap();
    assert_eq!(
        (&again.value, again.unused_fields.len()),
        (&config.value, 0)
    );
}

#[test]
fn config_rejects_values_by_name() {
    for (text, expected) in [
        (
            r#"{"attention_head_dim": [8, 8]}"#,
            "`attention_head_dim` is 2 values, expected 4",
        ),
        (
            r#"{"attention_head_dim": 7}"#,
            "`attention_head_dim` is 7, expected a divisor of 320",
        ),
        (r#"{"attention_head_dim": 0}"#, "`attention_head_dim` is 0"),
        (
            r#"{"only_cross_attention": [true]}"#,
            "`only_cross_attention` is 1 values",
        ),
        (
            r#"{"cross_attention_dim": [768, 1024]}"#,
            "`cross_attention_dim`",
        ),
        (
            r#"{"cross_attention_dim": 0}"#,
            "`cross_attention_dim` is 0",
        ),
        (
            r#"{"layers_per_block": [1, 2, 2, 2]}"#,
            "`layers_per_block`",
        ),
        (
            r#"{"transformer_layers_per_block": [1, 2]}"#,
            "`transformer_layers_per_block` is too short",
        ),
        (
            r#"{"transformer_layers_per_block": [1, [1], 1, 1]}"#,
            "`transformer_layers_per_block` is too short",
        ),
        (
            r#"{"transformer_layers_per_block": [1, [1, 2], 1, 1]}"#,
            "`reverse_transformer_layers_per_block` is null",
        ),
        (r#"{"transformer_layers_per_block": 1000000}"#, "at most 64"),
        (
            r#"{"reverse_transformer_layers_per_block": [1, 1]}"#,
            "`reverse_transformer_layers_per_block` is too short",
        ),
        (r#"{"conv_in_kernel": 2}"#, "`conv_in_kernel` is 2"),
        (r#"{"conv_out_kernel": 99}"#, "`conv_out_kernel` is 99"),
        (r#"{"time_cond_proj_dim": 2}"#, "`time_cond_proj_dim` is 2"),
        (
            r#"{"encoder_hid_dim_type": "text_proj"}"#,
            "`encoder_hid_dim` is null",
        ),
        (
            r#"{"encoder_hid_dim": 9, "encoder_hid_dim_type": "image_proj"}"#,
            "`encoder_hid_dim_type`",
        ),
        (
            r#"{"addition_embed_type": "text_image"}"#,
            "`addition_embed_type`",
        ),
        (
            r#"{"addition_embed_type": "text_time", "addition_time_embed_dim": 256}"#,
            "`projection_class_embeddings_input_dim` is null",
        ),
        (
            r#"{"addition_embed_type": "text_time", "projection_class_embeddings_input_dim": 9}"#,
            "`addition_time_embed_dim` is null",
        ),
        (
            r#"{"addition_embed_type": "text_time", "addition_time_embed_dim": 255,
            "projection_class_embeddings_input_dim": 9}"#,
            "`addition_time_embed_dim` is 255",
        ),
        (
            r#"{"class_embed_type": "projection"}"#,
            "`projection_class_embeddings_input_dim` is null",
        ),
        (
            r#"{"class_embeddings_concat": true}"#,
            "`class_embeddings_concat` is true",
        ),
        (
            r#"{"dual_cross_attention": true}"#,
            "`dual_cross_attention` is true",
        ),
        (
            r#"{"time_embedding_type": "fourier"}"#,
            "`time_embedding_type` is \"fourier\"",
        ),
        (
            r#"{"attention_type": "gated"}"#,
            "`attention_type` is \"gated\"",
        ),
        (
            r#"{"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}"#,
            "`mid_block_type`",
        ),
        (
            r#"{"down_block_types": ["KDownBlock2D"]}"#,
            "`down_block_types`",
        ),
        (
            r#"{"down_block_types": ["DownBlock2D"]}"#,
            "`down_block_types` is 1 blocks",
        ),
        (
            r#"{"up_block_types": ["UpBlock2D"]}"#,
            "`up_block_types` is 1 blocks",
        ),
        (
            r#"{"num_class_embeds": 9999999}"#,
            "`num_class_embeds` is 9999999",
        ),
        (r#"{"block_out_channels": []}"#, "`block_out_channels` is 0"),
    ] {
        let message = UNet2dConditionConfig::from_json(text)
            .unwrap_err()
            .to_string();
        assert!(message.contains(expected), "{text}: {message}");
    }
}
