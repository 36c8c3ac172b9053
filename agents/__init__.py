"""WHO chooses: agents that propose mappings, learned or not."""

from .base import AGENTS, Agent, AgentOptions, BudgetSpent, Candidate, Tools
from .learned import LearnedAgent
from .local_tools import LocalTools

__all__ = ["AGENTS", "Agent", "AgentOptions", "BudgetSpent", "Candidate", "LearnedAgent", "LocalTools", "Tools"]
