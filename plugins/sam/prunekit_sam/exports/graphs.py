"""The two halves of a SAM that transformers.js runs, as modules with its inputs and outputs.

Written out over segment_anything's own layers, for any widths, because its forwards take one image and write into
masked places, which no graph can hold.
"""

from __future__ import annotations

import torch
from segment_anything.modeling import Sam
from torch import Tensor, nn

PADDING, NOTHING = -1, -10  # labels: a point that is none, and a place without any token's content


class VisionEncoder(nn.Module):
    """``pixel_values`` (B, 3, S, S) -> ``image_embeddings``, ``image_positional_embeddings``, both (B, C, h, w)."""

    positions: Tensor

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.encoder = sam.image_encoder
        self.register_buffer("positions", sam.prompt_encoder.get_dense_pe().detach())

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        embeddings = self.encoder(pixel_values)
        return embeddings, self.positions.expand(embeddings.shape[0], -1, -1, -1)


class PromptEncoderMaskDecoder(nn.Module):
    """Points of B images, P masks an image and N points a mask -> the three masks of each and their scores.

    ``input_points`` (B, P, N, 2) in pixels of the resized image, ``input_labels`` (B, P, N) int64: 1 on the object, 0
    off it, -1 no point, -10 padding; the embeddings as ``VisionEncoder`` gives them. Out come ``iou_scores`` (B, P, 3)
    and ``pred_masks`` (B, P, 3, 4h, 4w), logits.
    """

    size: Tensor

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.prompts, self.decoder = sam.prompt_encoder, sam.mask_decoder
        height, width = sam.prompt_encoder.input_image_size
        self.register_buffer("size", torch.tensor([float(width), float(height)], device="cpu"))

    def forward(
        self, input_points: Tensor, input_labels: Tensor, image_embeddings: Tensor, image_positional_embeddings: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See the class."""
        batch, prompts = input_points.shape[0], input_points.shape[1]
        decoder, count = self.decoder, self.decoder.num_mask_tokens
        points = self.points(input_points.flatten(0, 1), input_labels.flatten(0, 1))
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = torch.cat([own.expand(points.shape[0], -1, -1), points], dim=1)
        image = self.each(image_embeddings + self.prompts.no_mask_embed.weight.reshape(1, -1, 1, 1), prompts)
        out, keys = decoder.transformer(image, self.each(image_positional_embeddings, prompts), tokens)
        upscaled = decoder.output_upscaling(keys.transpose(1, 2).reshape(image.shape))
        weights = [mlp(out[:, 1 + number]) for number, mlp in enumerate(decoder.output_hypernetworks_mlps)]
        masks = torch.stack(weights, dim=1) @ upscaled.flatten(2)
        masks = masks.reshape(batch, prompts, count, upscaled.shape[2], upscaled.shape[3])
        scores = decoder.iou_prediction_head(out[:, 0]).reshape(batch, prompts, count)
        return scores[:, :, 1:], masks[:, :, 1:]  # the first is the single mask, which this layout does not use

    def points(self, points: Tensor, labels: Tensor) -> Tensor:
        """(B*P, N, 2) points and (B*P, N) labels -> (B*P, N + 1, C) tokens; the last says that there is no box."""
        prompts = self.prompts
        points = torch.cat([points + 0.5, torch.zeros_like(points[:, :1])], dim=1)
        kinds = torch.cat([labels, torch.full_like(labels[:, :1], PADDING)], dim=1)[..., None]
        tokens: Tensor = prompts.pe_layer._pe_encoding(points / self.size)
        tokens = torch.where(kinds == PADDING, prompts.not_a_point_embed.weight, tokens)
        tokens = torch.where(kinds == NOTHING, torch.zeros_like(tokens), tokens)
        for kind in (0, 1):
            tokens = tokens + prompts.point_embeddings[kind].weight * (kinds == kind).to(tokens.dtype)
        return tokens

    @staticmethod
    def each(image: Tensor, prompts: int) -> Tensor:
        """(B, C, h, w) -> (B*P, C, h, w): every image once for each of its prompts."""
        return image[:, None].expand(-1, prompts, -1, -1, -1).flatten(0, 1)
