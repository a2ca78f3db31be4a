// Icons, drawn here, so that no font decides how they look. Each one is beside a text or a label.

const PATHS = {
  copy: "M9 9h11v11H9z M5 15H4V4h11v1",
  check: "M4 12l6 6L20 6",
  system: "M12 3a9 9 0 1 0 0 18z M12 3a9 9 0 0 1 0 18",
  light:
    "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8z M12 2v2 M12 20v2 M2 12h2 M20 12h2 M5 5l1.5 1.5 " +
    "M17.5 17.5L19 19 M5 19l1.5-1.5 M17.5 6.5L19 5",
  dark: "M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5z",
} as const;

export function Icon({ name }: { name: keyof typeof PATHS }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true">
      {name === "system" && <path d="M12 3a9 9 0 0 0 0 18z" class="filled" />}
      <path d={PATHS[name]} />
    </svg>
  );
}
