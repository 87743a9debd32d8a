// What the bundler accepts beside TypeScript.
declare module "*.css";
declare module "*.svg" {
  const text: string;
  export default text;
}
