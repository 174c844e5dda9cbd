import { defineConfig } from "vitest/config";

export default defineConfig({ test: { name: "picosam2", include: ["tests/*.test.ts"], testTimeout: 30_000 } });
