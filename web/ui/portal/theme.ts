// The theme changes at once; the portal keeps the choice in a cookie, so that
// the next page is right from its first byte.
import { all, one } from "./page";

export function theme(): void {
  for (const form of all<HTMLFormElement>("[data-themes]")) {
    form.addEventListener("submit", (event) => {
      const value = ((event as SubmitEvent).submitter as HTMLButtonElement | null)?.value;
      if (!value) return;
      event.preventDefault();
      const page = document.documentElement;
      if (value === "system") delete page.dataset["theme"];
      else page.dataset["theme"] = value;
      one<HTMLMetaElement>('meta[name="color-scheme"]')?.setAttribute("content", value === "system" ? "light dark" : value);
      for (const button of all<HTMLButtonElement>("[data-themes] button")) button.setAttribute("aria-pressed", String(button.value === value));
      const data = new URLSearchParams(new FormData(form) as unknown as Record<string, string>);
      data.set("theme", value);
      void fetch(form.action, { method: "POST", body: data, redirect: "manual" });
    });
  }
}
