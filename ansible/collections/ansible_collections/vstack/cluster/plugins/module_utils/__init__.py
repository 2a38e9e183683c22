"""What plugins share; nothing in here imports Ansible."""
