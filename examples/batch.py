"""Continue many texts at once; each gets what it would get alone."""

import floodstage

engine = floodstage.load("math-mini")
questions = ["What is 17 × 24?", "Simplify 7/35.", "Solve the equation 9y - 24 = 66."]
for question, answer in zip(questions, engine.generate_batch(questions, slots=3), strict=True):
    last = answer.text.strip().splitlines()[-1]
    print(f"{question:40} {last:32} tau {answer.tau:.1f}")
