import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    projects: ["packages/picosam2", "app"],
    coverage: {
      provider: "v8",
      include: ["packages/picosam2/src/**"],
      reporter: ["text", "json-summary"],
      reportsDirectory: ".coverage",
    },
  },
});
