"""Pages: onnxruntime-web in headless Chromium, or in Node, driven over a web socket."""
