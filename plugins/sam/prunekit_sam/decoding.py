"""What SAM's prompt encoder and mask decoder make of embeddings, a batch of images at once: for losses."""

from __future__ import annotations

from typing import cast

import torch
from segment_anything.modeling import Sam
from torch import Tensor, nn

ASKED = 2  # points, and as many boxes, an image


def with_prompts(sam: Sam, embedding: Tensor, points: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """(B, P, 4, 64, 64) logits and (B, P, 4) predicted IoU for (B, p, 2) points and (B, q, 4) boxes, P = p + q.

    The mask decoder's own forward takes one image a call; this is the same computation for a batch of images.
    """
    decoder, images = sam.mask_decoder, len(embedding)
    ones = torch.ones(points.shape[0] * points.shape[1], 1, device=points.device)
    sparse_points, _ = sam.prompt_encoder((points.reshape(-1, 1, 2), ones), None, None)
    sparse_boxes, _ = sam.prompt_encoder(None, boxes.reshape(-1, 4), None)
    sparse = torch.cat([part.view(images, -1, *part.shape[1:]) for part in (sparse_points, sparse_boxes)], 1)
    prompts = sparse.shape[1]
    sparse = sparse.flatten(0, 1)
    own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).expand(len(sparse), -1, -1)
    source = embedding + sam.prompt_encoder.no_mask_embed.weight[..., None, None]
    source = source.repeat_interleave(prompts, 0)
    places = sam.prompt_encoder.get_dense_pe().expand(len(sparse), -1, -1, -1)
    tokens, source = decoder.transformer(source, places, torch.cat([own, sparse], 1))
    keys = decoder.output_upscaling(source.transpose(1, 2).reshape(places.shape))
    count = decoder.num_mask_tokens
    wanted = torch.stack([decoder.output_hypernetworks_mlps[i](tokens[:, 1 + i]) for i in range(count)], 1)
    logits = torch.einsum("nkc,nchw->nkhw", wanted, keys)
    quality = decoder.iou_prediction_head(tokens[:, 0])
    return logits.view(images, prompts, *logits.shape[1:]), quality.view(images, prompts, -1)


def mask_logits(model: nn.Module, output: Tensor, seed: int) -> Tensor:
    """(B, P, 4, h, w) logits for (B, C, h / 4, w / 4) embeddings and prompts anywhere in the images, of ``seed``.

    No annotation is read: what counts is that a student's decoder answers as its teacher's does, wherever it is asked.
    """
    sam = cast(Sam, model)
    generator = torch.Generator().manual_seed(seed)
    side = float(sam.image_encoder.img_size)
    points = torch.rand(len(output), ASKED, 2, generator=generator, device="cpu") * side
    corners = torch.rand(len(output), ASKED, 2, 2, generator=generator, device="cpu") * side
    boxes = torch.cat([corners.amin(2), corners.amax(2)], -1)
    logits, _ = with_prompts(sam, output, points.to(output.device), boxes.to(output.device))
    return logits
