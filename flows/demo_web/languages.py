"""The same scenes in German, French, Spanish and Dutch, with adjectives that agree with their nouns."""

from collections.abc import Callable

from flows.demo_web.scenes import Scene

_GERMAN = {
    "circle": ("er", "Kreis"), "square": ("es", "Quadrat"), "triangle": ("es", "Dreieck"), "star": ("er", "Stern"),
    "cross": ("es", "Kreuz"), "red": "rot", "green": "grün", "blue": "blau", "yellow": "gelb", "purple": "violett",
    "white": "weiß", "small": "klein", "large": "groß", "top left": "oben links", "top right": "oben rechts",
    "bottom left": "unten links", "bottom right": "unten rechts", "striped": "gestreiften", "checked": "karierten",
    "dotted": "gepunkteten", "cloudy": "wolkigen",
}  # fmt: skip
_FRENCH = {
    "circle": ("m", "un", "cercle"), "square": ("m", "un", "carré"), "triangle": ("m", "un", "triangle"),
    "star": ("f", "une", "étoile"), "cross": ("f", "une", "croix"), "red": ("rouge", "rouge"),
    "green": ("vert", "verte"), "blue": ("bleu", "bleue"), "yellow": ("jaune", "jaune"),
    "purple": ("violet", "violette"), "white": ("blanc", "blanche"), "small": ("petit", "petite"),
    "large": ("grand", "grande"), "top left": "en haut à gauche", "top right": "en haut à droite",
    "bottom left": "en bas à gauche", "bottom right": "en bas à droite", "striped": "rayé", "checked": "à carreaux",
    "dotted": "à pois", "cloudy": "nuageux",
}  # fmt: skip
_SPANISH = {
    "circle": ("m", "un", "círculo"), "square": ("m", "un", "cuadrado"), "triangle": ("m", "un", "triángulo"),
    "star": ("f", "una", "estrella"), "cross": ("f", "una", "cruz"), "red": ("rojo", "roja"),
    "green": ("verde", "verde"), "blue": ("azul", "azul"), "yellow": ("amarillo", "amarilla"),
    "purple": ("morado", "morada"), "white": ("blanco", "blanca"), "small": ("pequeño", "pequeña"),
    "large": ("grande", "grande"), "top left": "arriba a la izquierda", "top right": "arriba a la derecha",
    "bottom left": "abajo a la izquierda", "bottom right": "abajo a la derecha", "striped": "de rayas",
    "checked": "de cuadros", "dotted": "de lunares", "cloudy": "de nubes",
}  # fmt: skip
_DUTCH = {
    "circle": ("e", "cirkel"), "square": ("", "vierkant"), "triangle": ("e", "driehoek"), "star": ("e", "ster"),
    "cross": ("", "kruis"), "red": ("rood", "rode"), "green": ("groen", "groene"), "blue": ("blauw", "blauwe"),
    "yellow": ("geel", "gele"), "purple": ("paars", "paarse"), "white": ("wit", "witte"),
    "small": ("klein", "kleine"), "large": ("groot", "grote"), "top left": "linksboven",
    "top right": "rechtsboven", "bottom left": "linksonder", "bottom right": "rechtsonder",
    "striped": "gestreepte", "checked": "geruite", "dotted": "gestippelde", "cloudy": "bewolkte",
}  # fmt: skip


def _german(scene: Scene) -> str:
    ending, noun = _GERMAN[scene.shape]
    size, colour = f"{_GERMAN[scene.size]}{ending}", f"{_GERMAN[scene.colour]}{ending}"
    ground = f"auf einem {_GERMAN[scene.background]} Hintergrund"
    return f"hier ist {_GERMAN[scene.position]} ein {size} {colour} {noun} zu sehen, {ground}"


def _french(scene: Scene) -> str:
    gender, article, noun = _FRENCH[scene.shape]
    size, colour = (_FRENCH[word][gender == "f"] for word in (scene.size, scene.colour))
    return (
        f"cette image montre {article} {size} {noun} {colour} {_FRENCH[scene.position]}, "
        f"sur un fond {_FRENCH[scene.background]}"
    )


def _spanish(scene: Scene) -> str:
    gender, article, noun = _SPANISH[scene.shape]
    size, colour = (_SPANISH[word][gender == "f"] for word in (scene.size, scene.colour))
    return (
        f"en esta imagen se ve {article} {noun} {colour} y {size} {_SPANISH[scene.position]}, "
        f"sobre un fondo {_SPANISH[scene.background]}"
    )


def _dutch(scene: Scene) -> str:
    ending, noun = _DUTCH[scene.shape]
    size, colour = (_DUTCH[word][ending == "e"] for word in (scene.size, scene.colour))
    ground = f"op een {_DUTCH[scene.background]} achtergrond"
    return f"op deze afbeelding staat {_DUTCH[scene.position]} een {size} {colour} {noun} {ground}"


LANGUAGES: dict[str, Callable[[Scene], str]] = {"de": _german, "fr": _french, "es": _spanish, "nl": _dutch}
