"""The Raspberry Pi AI Camera: the network runs inside its sensor, and the click moves the sensor.

The sensor shows the network one rectangle of its image, the region of interest (ROI). The prompt
of this network is where its window is, so pointing at something *is* moving the ROI. What comes
back with a frame is the network's answer; the mask is placed by the same `geometry` as ever.

    sensor.py     the camera through picamera2: frames and answers out, windows in
    roi.py        which window an answer belongs to: the sensor does not say
    session.py    from a click to a mask that is followed
    page.py       the live view in a browser
    simulated.py  a sensor without the hardware, with picamera2's interface
"""
