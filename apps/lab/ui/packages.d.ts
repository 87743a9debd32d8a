// What the build (build/labbundle.go) makes from the list of JupyterLab's packages.
declare module "quire:packages" {
  export const extensions: [string, unknown][];
  export const mime: [string, unknown][];
}
declare module "quire:shared" {
  export const shared: Record<string, [version: string, module: Record<string, unknown>]>;
}
declare module "*.css";
