// What build/lab.go makes from the list of JupyterLab's packages.
declare module "quire:packages" {
  export const extensions: [string, unknown][];
  export const mime: [string, unknown][];
  // What prebuilt extensions share with the app: version and how to get it.
  export const shared: Record<string, [string, () => Promise<Record<string, unknown>>]>;
}
declare module "*.css";
