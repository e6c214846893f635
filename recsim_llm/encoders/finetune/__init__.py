"""Fine-tuning of text encoders on interactions: LoRA, AdaLoRA or all weights. Needs PyTorch and peft."""
