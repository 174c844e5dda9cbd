"""Programs made of the library: the HTTP server, the camera, the browser demo, labelme."""
