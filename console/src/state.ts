// The page's state. It lives as long as the page; only the choice of the theme is stored.

import { signal } from "@preact/signals";
import type { Signer } from "./signer";
import type { Session } from "./types";

export interface Login {
  signer: Signer;
  session: Session;
}

export const login = signal<Login | null>(null);

// The reason for which the last login ended, to be shown beside the form for the next one.
export const ended = signal<string | null>(null);

export type Reach = { state: "well" } | { state: "away" } | { state: "not-ready"; reason: string };
export const reach = signal<Reach>({ state: "well" });

// Counts the times that the relay came back, so that pages ask again.
export const returns = signal(0);

// The newest answer to a change, for screen readers.
export const announcement = signal("");

// The event that the inspector starts with.
export const inspected = signal("");

export function logOut(reason: string | null = null): void {
  login.value?.signer.forget();
  login.value = null;
  inspected.value = "";
  ended.value = reason;
}

export type Theme = "system" | "light" | "dark";
const THEMES: readonly Theme[] = ["system", "light", "dark"];
const THEME_KEY = "console-theme";

function storedTheme(): Theme {
  try {
    return THEMES.find((known) => known === localStorage.getItem(THEME_KEY)) ?? "system";
  } catch {
    // The browser keeps nothing for this page.
    return "system";
  }
}

export const theme = signal<Theme>(storedTheme());

export function showTheme(): void {
  if (theme.value === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.value;
}

export function chooseTheme(chosen: Theme): void {
  theme.value = chosen;
  showTheme();
  try {
    localStorage.setItem(THEME_KEY, chosen);
  } catch {
    // The choice holds until the page is closed.
  }
}
