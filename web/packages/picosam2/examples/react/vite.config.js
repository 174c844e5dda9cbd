// Vite's pre-bundling would move the library away from its worker and its weights.
export default { optimizeDeps: { exclude: ["picosam2"] }, worker: { format: "es" } };
