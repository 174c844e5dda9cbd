import tseslint from "typescript-eslint";

export default tseslint.config(
  {
    ignores: [
      "**/node_modules/", "eslint.config.js", "packages/picosam2/dist/", "packages/picosam2/kernels/", "packages/picosam2/standalone/", "packages/picosam2/examples/react/dist/",
      ".coverage/",
    ],
  },
  ...tseslint.configs.strict,
  {
    rules: {
      // Typed arrays are indexed by loops whose bounds are their lengths.
      "@typescript-eslint/no-non-null-assertion": "off",
      "@typescript-eslint/no-explicit-any": "error",
      eqeqeq: "error",
    },
  },
);
