"""Routes in the shapes of other projects, so that their clients work unchanged: Hugging Face and Open Inference."""
