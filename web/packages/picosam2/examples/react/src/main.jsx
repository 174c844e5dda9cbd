import { createSegmenter } from "picosam2";
import { useEffect, useRef, useState } from "react";
import { createRoot } from "react-dom/client";

/** An image in which a click shows an object's mask. */
function Segment({ src }) {
  const segmenter = useRef(null);
  const [size, setSize] = useState(null);
  const [mask, setMask] = useState(null);

  useEffect(() => {
    let current = true;
    segmenter.current ??= createSegmenter();
    (async () => {
      const blob = await (await fetch(src)).blob();
      const { width, height } = await createImageBitmap(blob);
      await (await segmenter.current).setImage(blob);
      if (current) setSize({ width, height });
    })();
    return () => {
      current = false;
    };
  }, [src]);

  const pick = async (event) => {
    const area = event.currentTarget.getBoundingClientRect();
    const x = ((event.clientX - area.left) / area.width) * size.width;
    const y = ((event.clientY - area.top) / area.height) * size.height;
    setMask(await (await segmenter.current).predict({ points: [[x, y]] }));
  };

  if (!size) return <p>Loading…</p>;
  return (
    <svg viewBox={`0 0 ${size.width} ${size.height}`} onClick={pick} style={{ maxWidth: "100%" }}>
      <image href={src} width={size.width} height={size.height} />
      {mask && (
        // One path of all contours: the inner ones are holes.
        <path
          d={mask.contours.map((contour) => `M${contour.join(" ")}Z`).join("")}
          fill="#56b4e9" fillOpacity="0.5" fillRule="evenodd" stroke="#fff"
        />
      )}
    </svg>
  );
}

createRoot(document.getElementById("root")).render(<Segment src="/photo.jpg" />);
